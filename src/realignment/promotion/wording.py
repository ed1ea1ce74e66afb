"""Word the gate's reasons: each names the figure, its bound, its limit, the judge and the number of items."""

import math
from collections.abc import Mapping
from typing import Any

from realignment.parameters import GateRule

_BOUNDS = {"low": "the lower bound of", "high": "the upper bound of", "point": ""}


def describe_check(rule: GateRule, row: Mapping[str, Any], bound: float, *, champion: str | None) -> str:
    """Describe what a rule found in a row of the evaluation table, and what it demands.

    Args:
        rule: The rule.
        row: The row.
        bound: The figure that is compared.
        champion: Version of the champion that the row compares with; None: it compares with before.

    Returns:
        Two sentences.
    """
    first, second = ("before", "after") if champion is None else (f"champion version {champion}", "candidate")
    unit = str(row["unit"])
    figures = f"{first} {_value(row, 'before', unit)}, {second} {_value(row, 'after', unit)}"
    difference = _interval(row, "difference", unit, signed=True)
    demand = "must be at least" if rule.is_floor else "may be at most"
    margin = ""
    if rule.is_margin:
        change = "loss" if rule.is_floor else "rise"
        # A margin of zero is no "-0".
        margin = f" (no {change} beyond {show(abs(rule.limit), unit, signed=True).lstrip('+')})"
    signed = rule.compared_side == "difference"
    side = {"before": first, "after": second, "difference": "the difference"}[rule.compared_side]
    compared = f"{_BOUNDS[rule.compared_bound]} {side}".strip()
    return (
        f"{rule.name}: {describe_figure(row)}: {figures}, difference {difference}. "
        f"{compared[0].upper()}{compared[1:]} is {show(bound, unit, signed=signed)} and {demand} "
        f"{show(rule.limit, unit, signed=signed)}{margin}."
    )


def describe_figure(row: Mapping[str, Any]) -> str:
    """Describe what a row is about: metric, group, judge and number of items."""
    judge = f"judge: {row['judge']}" if row["judge"] else "no judge"
    return f"{row['metric']}, {row['group']} ({judge}, n = {int(row['n'])})"


def show(value: float, unit: str, *, signed: bool = False) -> str:
    """Show a value in its unit: shares in percent, differences of shares in percentage points, NaN as n/a.

    Args:
        value: The value.
        unit: The column `unit` of the evaluation table.
        signed: Whether it is a difference.

    Returns:
        Such as `12.3 %`, `+4.5 points`, `0.412 nats/token`.
    """
    if math.isnan(value):
        return "n/a"
    if unit == "share":
        return f"{100 * value:+.1f} points" if signed else f"{100 * value:.1f} %"
    return f"{value:{'+' if signed else ''}.4g} {unit}"


def _value(row: Mapping[str, Any], side: str, unit: str) -> str:
    return f"{show(float(row[side]), unit)} ({_ends(row, side, unit, signed=False)})"


def _interval(row: Mapping[str, Any], side: str, unit: str, *, signed: bool) -> str:
    interval = _ends(row, side, unit, signed=signed)
    return f"{show(float(row[side]), unit, signed=signed)} (95 % interval {interval})"


def _ends(row: Mapping[str, Any], side: str, unit: str, *, signed: bool) -> str:
    low, high = (show(float(row[f"{side}_{end}"]), unit, signed=signed) for end in ("low", "high"))
    return low if low == high == "n/a" else f"{low} to {high}"
