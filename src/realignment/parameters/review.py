"""Parameters of `review_export` and `review_import`: what people are asked to judge."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from realignment.parameters.base import Parameters


def _as_list(value: Any) -> Any:
    """One text is a list of one: a list cannot be given on the command line."""
    return (value,) if isinstance(value, str) else value


class ReviewParameters(Parameters):
    """Responses that people are asked to judge."""

    limit: int | None = Field(
        None, ge=1, description="Largest number of REVIEW pairs, drawn at random; null: all"
    )
    audit: bool = Field(True, description="Export the audit sample too; false: only the pairs in review")
    corrections: int = Field(
        0,
        ge=0,
        description="Largest number of corrections of `verified_corrections` to export too, the same number "
        "for every writer and verdict of the verifier",
    )
    same_as: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = Field(
        (),
        description="Digests of earlier texts of the policy: verdicts under these texts are imported as if "
        "given under the present text, because the edit does not matter",
    )
