"""Every parameter, typed, checked before any node runs. Kedro builds them from `conf/*/parameters_*.yml`."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from realignment.parameters.base import Parameters


def _as_list(given: Any) -> Any:
    """One text is a list of one: a list cannot be given on the command line."""
    return (given,) if isinstance(given, str) else given


class ReviewParameters(Parameters):
    """What people are asked to judge."""

    limit: int | None = Field(None, ge=1, description="At most so many REVIEW pairs, at random; null: all")
    audit: bool = Field(True, description="Ask for the audit sample too; false: only the pairs in review")
    corrections: int = Field(
        0,
        ge=0,
        description="So many corrections of `verified_corrections` too, at most: equally many of every "
        "writer and verdict of the verifier",
    )
    same_as: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = Field(
        (),
        description="Digests of earlier texts of the policy: verdicts given under them are imported as given "
        "under what it says now, because the edit does not matter",
    )
