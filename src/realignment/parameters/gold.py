"""Every parameter, typed, checked before any node runs. Kedro builds them from `conf/*/parameters_*.yml`."""

from typing import Literal

from pydantic import Field

from realignment.parameters.base import Parameters


class GoldParameters(Parameters):
    """Held-out pairs and gold batch."""

    size: int = Field(ge=3, description="B (paper: 64-100)")
    composition: Literal["random", "policy_targeted"] = Field(
        "random", description="policy_targeted draws the conflicts evenly over the broken rules"
    )
    held_out_share: float = Field(
        0.1, ge=0, lt=0.9, description="Share of each disposition's prompts that only the evaluation sees"
    )
