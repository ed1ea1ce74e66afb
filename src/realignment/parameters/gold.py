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
    retained: Literal["decided", "all"] = Field(
        "decided",
        description="RETAIN pairs of the gold batch: decided, those whose rejected response violates; all, "
        "also those that state only the old preference, as published",
    )
    punished: Literal["correction", "random_compliant"] = Field(
        "correction",
        description="PUNISH pairs of the gold batch: correction, those that have one; random_compliant, all, "
        "preferring a random compliant response to another prompt where there is none, as published",
    )
    held_out_share: float = Field(
        0.1, ge=0, lt=0.9, description="Share of each disposition's prompts that only the evaluation sees"
    )
