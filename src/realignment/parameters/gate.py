"""Parameters of the promotion gate: rules over the evaluation table, each of which can be read aloud."""

import math
from typing import Literal

from pydantic import Field, model_validator

from realignment.parameters.base import Parameters

LIMITS = ("min", "max", "no_loss_beyond", "no_rise_beyond")
"""Fields of a rule that state its limit; a rule has exactly one of them."""


class RuleCondition(Parameters):
    """When a rule applies: only where a metric was measured, or only where it was not."""

    present: str | None = Field(None, description="Only where this metric was measured")
    absent: str | None = Field(None, description="Only where this metric was not measured")
    group: str | None = Field(None, description="Of this group; null: of any group")

    @model_validator(mode="after")
    def _check_metric(self) -> "RuleCondition":
        if (self.present is None) == (self.absent is None):
            raise ValueError("`when` needs one of `present: METRIC` and `absent: METRIC`, and only one")
        return self


class GateRule(Parameters):
    """One rule of the gate: one bound of one figure of the evaluation table, and its limit."""

    name: str = Field(min_length=1, description="What the check is called in the gate's report")
    metric: str = Field(min_length=1, description="Metric of the evaluation table")
    group: str = Field(
        "overall",
        min_length=1,
        description="Its group; with `*` every group that matches is checked, such as `domain:*`",
    )
    judge: str = Field(
        "best",
        min_length=1,
        description="Whose verdicts: `best` (the headline's judge), `all` or `any` judge, a judge's name, or "
        "`none` (only figures that need no judge); such figures count for every value but a name",
    )
    against: Literal["before", "champion"] = Field(
        "before", description="What `before` and `difference` refer to: the reference model, or the champion"
    )
    side: Literal["before", "after", "difference"] | None = Field(
        None, description="The figure; null: the difference for a margin, else the value after training"
    )
    bound: Literal["low", "high", "point"] | None = Field(
        None,
        description="Which end of its 95 % interval is compared; null: the one that is harder to pass with",
    )
    min: float | None = Field(None, description="The bound must be at least this")
    max: float | None = Field(None, description="The bound may be at most this")
    no_loss_beyond: float | None = Field(
        None, ge=0, description="Non-inferiority: the interval excludes a fall by more than this margin"
    )
    no_rise_beyond: float | None = Field(
        None, ge=0, description="Non-inferiority: the interval excludes a rise by more than this margin"
    )
    required: bool = Field(
        True, description="Whether a figure that was not measured fails the gate; false: it is noted"
    )
    when: RuleCondition | None = Field(None, description="Apply only under this condition")

    @property
    def compared_side(self) -> str:
        """The figure that is compared: before, after or difference."""
        return self.side or ("difference" if self.is_margin else "after")

    @property
    def compared_bound(self) -> str:
        """The end of the interval that is compared: low, high or point."""
        return self.bound or ("low" if self.is_floor else "high")

    @property
    def is_margin(self) -> bool:
        """Whether it is a rule of non-inferiority."""
        return self.no_loss_beyond is not None or self.no_rise_beyond is not None

    @property
    def is_floor(self) -> bool:
        """Whether the limit is a lower one."""
        return self.min is not None or self.no_loss_beyond is not None

    @property
    def limit(self) -> float:
        """What the bound is compared with, in the unit of the metric; a margin of loss is negative."""
        if self.no_loss_beyond is not None:
            return 0.0 if self.no_loss_beyond == 0 else -self.no_loss_beyond
        limits = (self.min, self.max, self.no_rise_beyond)
        return float(next(limit for limit in limits if limit is not None))

    @model_validator(mode="after")
    def _check_limit(self) -> "GateRule":
        given = [name for name in LIMITS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"rule {self.name!r} has {' and '.join(given) or 'no limit'}; expected exactly one of "
                f"{', '.join(LIMITS)}. Write two rules for two limits"
            )
        if not math.isfinite(self.limit):
            raise ValueError(f"the limit of rule {self.name!r} is {self.limit}; expected a number")
        conservative = "low" if self.is_floor else "high"
        is_other = self.side not in (None, "difference") or self.bound not in (None, conservative)
        if self.is_margin and is_other:
            raise ValueError(
                f"rule {self.name!r} is one of non-inferiority, which compares the {conservative} bound of "
                "the difference: leave `side` and `bound` out, or use `min` or `max`"
            )
        return self


class GateParameters(Parameters):
    """The promotion gate: its rules, and what a failure does."""

    enforce: bool = Field(
        False,
        description="Whether a failed gate ends the run with an error, after the model is registered as "
        "candidate and summary and report are written",
    )
    require_audit: bool = Field(
        False,
        description="Whether the oracle must have passed an audit of these splits (`audit.max_misrouted`)",
    )
    rules: tuple[GateRule, ...] = Field(
        min_length=1, description="The rules; how to write one: docs/how-to/promotion-gate.md"
    )

    @model_validator(mode="after")
    def _check_names(self) -> "GateParameters":
        names = [rule.name for rule in self.rules]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"several rules have the name {', '.join(repeated)}; give each its own")
        return self
