"""Parameters of `gold`: the sizes of the held-out part and the gold batch."""

from typing import Literal

from pydantic import Field

from realignment.parameters.base import Parameters


class GoldParameters(Parameters):
    """Sizes of the held-out part and the gold batch."""

    size: int = Field(ge=3, description="B, pairs of the gold batch (paper: 64-100)")
    composition: Literal["random", "policy_targeted"] = Field(
        "random", description="policy_targeted draws the conflicts evenly over the broken rules"
    )
    held_out_share: float = Field(
        0.1, ge=0, lt=0.9, description="Share of each disposition's prompts that only the evaluation sees"
    )
