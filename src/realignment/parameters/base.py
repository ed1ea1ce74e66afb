"""What the parameters of every stage stand on."""

import difflib
import string
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


class Parameters(BaseModel):
    """Frozen, and a name that is not listed here is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _names_are_known(cls, given: Any) -> Any:
        """Pydantic would refuse the name, and not say which names there are."""
        for name in sorted(set(given) - set(cls.model_fields), key=str) if isinstance(given, dict) else ():
            near = difflib.get_close_matches(str(name), cls.model_fields, n=1)
            meant = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(cls.model_fields)}"
            raise ValueError(f"there is no parameter `{name}`; {meant}")
        return given


Share = Annotated[float, Field(ge=0, le=1)]


def _has_known_places(template: str) -> str:
    places = {"prompt", "response", "domain"}
    try:
        found = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise ValueError(f"{error}; a brace that is no place is written twice") from error
    if "response" not in found or not found <= places:
        raise ValueError(
            f"expected {{response}} and, if wanted, {{prompt}} and {{domain}}, found the places "
            f"{', '.join(sorted(found)) or 'none'}"
        )
    return template


ExchangeTemplate = Annotated[str, Field(min_length=1), AfterValidator(_has_known_places)]
"""What a classifier reads of an exchange."""


class ModelParameters(Parameters):
    """Where M_ref comes from, and how it is loaded."""

    source: str = Field(
        min_length=1,
        description="Folder, Hub id, gguf:FILE, models:/NAME@ALIAS or pypi://DISTRIBUTION==VERSION/MEMBER",
    )
    sha256: str | None = Field(None, description="Expected digest; null accepts any")
    revision: str | None = Field(None, description="Branch, tag or commit of a Hub model")
    folder: str = Field(description="Where fetched models are kept")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: bfloat16 where the hardware multiplies it natively, else float32"
    )
    quantize: Literal["nf4", "int8"] | None = Field(
        None, description="Frozen weights in 4 or 8 bits while a LoRA is trained (QLoRA); needs bitsandbytes"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="auto: the GPU where torch finds one, else the CPU"
    )
