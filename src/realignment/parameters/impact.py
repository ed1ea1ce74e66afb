"""Parameters of `impact`: how scores are computed and become weights."""

from typing import Literal

from pydantic import Field

from realignment.parameters.base import Parameters, Share


class ImpactParameters(Parameters):
    """Impact scores → weights (method.md, section 5)."""

    normalize: Literal["mean_one", "l1", "clamped", "uniform"] = Field(
        "mean_one",
        description="mean_one: per treatment; l1: the paper's; clamped: 0 for negative scores, else 1; "
        "uniform: all weights are 1, and no score is computed",
    )
    winsorize: float | None = Field(
        None, gt=0, le=1, description="Quantile that caps a treatment's largest weights; null: no cap"
    )
    length_normalize: bool = Field(
        False, description="Divide each score by the number of its pair's response tokens"
    )
    max_negative_share: Share = Field(
        0.5, description="A larger share of negative scores of a treatment stops the run"
    )
    engine: Literal["ghost", "jvp", "finite_difference"] = Field(
        "ghost",
        description="ghost: one backward pass per batch, exact; jvp: forward mode, exact, stores no "
        "activations; finite_difference: two forward passes, approximate, only in float32",
    )
    curvature: Literal["identity", "diagonal_fisher", "kfac"] = Field(
        "identity", description="H in -g_J' H^-1 g_i: the paper's identity, or the Fisher information"
    )
    damping: float = Field(0.1, gt=0, description="Added to the Fisher, relative to its mean")
    curvature_pairs: int = Field(128, ge=1, description="Conflicts on which the Fisher is estimated")
    token_budget: int = Field(2048, ge=1, description="Tokens per forward pass")
