"""Every parameter, typed, checked before any node runs. Kedro builds them from `conf/*/parameters_*.yml`."""

from typing import Literal

from pydantic import Field

from realignment.parameters.base import Parameters


class IntakeParameters(Parameters):
    """What is done with rows that cannot be used."""

    invalid: Literal["skip", "fail"] = Field(
        "skip", description="Rows that cannot be used: list them in `rejected_rows`, or stop"
    )
    max_prompt_chars: int = Field(8000, ge=1, description="Characters that a prompt may have")
    long_prompts: Literal["drop", "truncate", "fail"] = Field(
        "drop", description="Long prompts: list them in `rejected_rows`, keep their end, or stop"
    )
    limit: int | None = Field(None, ge=1, description="At most so many rows, drawn at random; null: all")
