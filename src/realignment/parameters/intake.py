"""Parameters of the intake: what is done with rows that cannot be used."""

from typing import Literal

from pydantic import Field

from realignment.parameters.base import Parameters


class IntakeParameters(Parameters):
    """Treatment of rows that cannot be used."""

    invalid: Literal["skip", "fail"] = Field(
        "skip", description="Rows that cannot be used: list them in `rejected_rows`, or stop"
    )
    max_prompt_chars: int = Field(8000, ge=1, description="Largest number of characters of a prompt")
    long_prompts: Literal["drop", "truncate", "fail"] = Field(
        "drop", description="Longer prompts: list them in `rejected_rows`, keep their end, or stop"
    )
    limit: int | None = Field(None, ge=1, description="Largest number of rows, drawn at random; null: all")
