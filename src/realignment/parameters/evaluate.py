"""Parameters of `evaluate`: which two models are compared."""

from pydantic import Field

from realignment.parameters.base import Parameters


class ModelsParameters(Parameters):
    """Two models, each a folder, a Hub id, `gguf:FILE`, `models:/NAME@ALIAS` or a package's file."""

    before: str = Field(min_length=1, description="The model that the differences count from")
    after: str = Field(min_length=1, description="The model that is compared with it")

    def sources(self) -> tuple[str, str]:
        """Return the sources of both, before and after."""
        return self.before, self.after
