"""How many prompts a rule of the gate needs, where with fewer of them no candidate can pass it."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from realignment.parameters import GateRule
from realignment.statistics import mcnemar_p, newcombe_interval, wilson_interval

PAIRED = "McNemar exact"
"""The column `test` of a share that was compared on the same items, whose interval is Newcombe's."""

MOST = 10**7
"""Beyond so many items no number is named."""


def unchanged_half_width(n: float, share: float, discordance: float) -> float:
    """Compute how far the interval of the paired difference reaches for a candidate without change.

    Args:
        n: Items, > 0.
        share: Items that have the property, before as after, in 0..1.
        discordance: Items whose property changed, half of them each way, in 0..1.

    Returns:
        The upper end of the interval, which is symmetric about zero, as a share.
    """
    # A share near 0 or 1 has no room for half of the changes.
    share = min(max(share, discordance / 2), 1 - discordance / 2)
    changed = discordance * n / 2
    both = max(0.0, share * n - changed)
    neither = max(0.0, (1 - share) * n - changed)
    return newcombe_interval(both, changed, changed, neither).high


def needed_n(share: float, discordance: float, margin: float) -> int | None:
    """Compute from how many items on a candidate without change passes a rule of non-inferiority.

    Args:
        share: Items that have the property, in 0..1.
        discordance: Items whose property changed, in 0..1: the more of them, the wider the interval.
        margin: Largest loss (or rise) that the interval may include, as a share.

    Returns:
        The smallest number of items whose interval stays within the margin; None: none of up to `MOST` does.
    """
    return smallest_n(lambda n: unchanged_half_width(n, share, discordance) <= margin)


def smallest_n(is_enough: Callable[[int], bool]) -> int | None:
    """Find the smallest number of items that is enough, by bisection.

    Args:
        is_enough: Whether so many items are enough; once true, true for all greater numbers.

    Returns:
        The number, ≥ 1; None where `MOST` are not enough.
    """
    if not is_enough(MOST):
        return None
    too_few, enough = 0, MOST
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if is_enough(middle):
            enough = middle
        else:
            too_few = middle
    return enough


def find_discordance(row: Mapping[str, Any]) -> float:
    """Find the share of changed items behind a paired comparison, of which the table has only the interval.

    Args:
        row: A row of the evaluation table whose `test` is `PAIRED`.

    Returns:
        Items that have the property on one side only, as a share of all.
    """
    n = int(row["n"])
    before = round(float(row["before"]) * n)
    after = round(float(row["after"]) * n)

    def cells(both: int) -> tuple[int, int, int, int]:
        return both, before - both, after - both, n - before - after + both

    possible = range(max(0, before + after - n), min(before, after) + 1)
    low = float(row["difference_low"])
    errors = {both: abs(newcombe_interval(*cells(both)).low - low) for both in possible}
    smallest_error = min(errors.values())
    closest = [both for both, error in errors.items() if error <= smallest_error + 1e-9]
    # Where the continuity correction is cut off at zero several tables have one interval: p decides.
    both = min(closest, key=lambda both: abs(mcnemar_p(*cells(both)[1:3]) - float(row["p_value"])))
    return (before + after - 2 * both) / n


def explain_too_few(rule: GateRule, row: Mapping[str, Any]) -> str:
    """Explain how many items a check needs, if with these few no candidate could pass it.

    For a margin the candidate is one without change, whose answers differ as often as those that were seen;
    for another limit it is the best there can be. A loss that is itself beyond the margin is no matter of
    numbers, and is not explained away.

    Args:
        rule: The rule, which the row does not meet.
        row: A row of the evaluation table.

    Returns:
        A sentence; empty where the number of items is not the reason.
    """
    n = int(row["n"])
    if rule.is_margin:
        if not _holds(rule, float(row["difference"])):
            return ""
        return _explain_margin(rule, row, n) if row["test"] == PAIRED else _explain_other(rule, row, n)
    if row["test"] != PAIRED:
        return ""
    if rule.compared_bound != ("low" if rule.is_floor else "high"):
        return ""
    bound = _best_bound(rule, float(row["before"]))
    if bound is None or _holds(rule, bound(n)):
        return ""
    enough = smallest_n(lambda size: _holds(rule, bound(size)))
    return f" With n = {n} not even the best candidate could pass; {_say_needed(enough)}"


def _explain_margin(rule: GateRule, row: Mapping[str, Any], n: int) -> str:
    margin = abs(rule.limit)
    share = float(row["before"])
    discordance = find_discordance(row)
    half_width = unchanged_half_width(n, share, discordance)
    if half_width <= margin:
        return ""
    return (
        f" With n = {n} not even a candidate without change could pass: where {100 * discordance:.1f} % of "
        f"the items change, its interval reaches {100 * half_width:.1f} points, beyond the margin; "
        f"{_say_needed(needed_n(share, discordance, margin))}"
    )


def _explain_other(rule: GateRule, row: Mapping[str, Any], n: int) -> str:
    """An interval without a formula: its width shrinks with the square root of the items."""
    margin = abs(rule.limit)
    end = "difference_low" if rule.is_floor else "difference_high"
    half_width = abs(float(row["difference"]) - float(row[end]))
    if math.isnan(half_width) or half_width <= margin:
        return ""
    enough = math.ceil(n * (half_width / margin) ** 2) if margin > 0 else None
    return f" With n = {n} not even a candidate without change could pass; {_say_needed(enough)}"


def _best_bound(rule: GateRule, before: float) -> Callable[[int], float] | None:
    """The bound that the best candidate has, by the number of items; None: no formula gives it."""
    if rule.compared_side == "difference":
        if rule.is_floor:
            return lambda n: newcombe_interval(before * n, 0, (1 - before) * n, 0).low
        return lambda n: newcombe_interval(0, before * n, 0, (1 - before) * n).high
    if rule.compared_side == "after":
        if rule.is_floor:
            return lambda n: wilson_interval(n, n).low
        return lambda n: wilson_interval(0, n).high
    return None


def _holds(rule: GateRule, bound: float) -> bool:
    return bound >= rule.limit if rule.is_floor else bound <= rule.limit


def _say_needed(enough: int | None) -> str:
    return "no number is enough for this limit." if enough is None else f"about {enough:,} are needed."
