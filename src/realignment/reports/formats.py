"""Format numbers for the page and the terminal: shares in percent, everything else with three digits."""

import math
from typing import Any

import pandas as pd

SHARES = frozenset(
    {
        "agreement", "agreement_corrected", "answers_cut", "attack_success", "attack_success_by_rule",
        "capability", "old_policy_agreement", "over_refusal", "over_refusal_corrected",
        "preference_accuracy", "refusal_phrases", "win_rate",
    }
)  # fmt: skip
"""Metrics that are shares of items: shown in percent, their differences in percentage points."""

MISSING = "n/a"


def is_missing(value: Any) -> bool:
    """Tell whether a number is absent: null or NaN."""
    return value is None or bool(pd.isna(value))


def number(value: Any) -> str:
    """Format a number with three significant digits; whole numbers get thousands separators."""
    if is_missing(value):
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if math.isfinite(value) and (float(value).is_integer() or abs(value) >= 1000):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def share(value: Any) -> str:
    """Format a share as percent: 0.7133 → `71.3 %`."""
    return MISSING if is_missing(value) else f"{100 * value:.1f} %"


def quantity(metric: str, value: Any) -> str:
    """Format a value of a metric: shares in percent, others as numbers."""
    return share(value) if metric in SHARES else number(value)


def difference(metric: str, value: Any) -> str:
    """Format a difference with its sign; of shares in percentage points."""
    if is_missing(value):
        return MISSING
    if metric in SHARES:
        return f"{100 * value:+.1f}"
    return ("+" if value > 0 else "") + number(value)


def interval(metric: str, low: Any, high: Any, *, signed: bool = False) -> str:
    """Format an interval: `12.3 % to 45.6 %`, a difference `+1.2 to +3.4`; n/a if an end is missing."""
    if is_missing(low) or is_missing(high):
        return MISSING
    format_end = difference if signed else quantity
    return f"{format_end(metric, low)} to {format_end(metric, high)}"


def p_value(value: Any) -> str:
    """Format a p-value with three decimals, but never as zero."""
    if is_missing(value):
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def name_of(identifier: str) -> str:
    """Return what readers see for an identifier: `kl_drift` → `KL drift`, `domain:money` → `money`."""
    special_names = {
        "over_refusal": "over-refusal",
        "agreement_corrected": "agreement, corrected for the judge's errors",
        "over_refusal_corrected": "over-refusal, corrected for the judge's errors",
        "kl_drift": "KL drift",
        "distinct_1": "distinct-1",
        "distinct_2": "distinct-2",
        "answers_cut": "answers cut at the limit",
        "repetition": "repeated 4-grams",
        "entropy": "entropy of the next token",
        "look_alike": "look-alike",
    }
    group, _, member = identifier.partition(":")
    name = member if member and " " not in group else identifier  # "agreement (judge: rules)" is no group
    return special_names.get(name, name.replace("_", " "))
