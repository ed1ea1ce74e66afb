"""The gate that a candidate has to pass to become champion; every reason names value and limit."""

import math
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, TypedDict

import pandas as pd

from realignment.records import RealignmentError

_HEADLINES = ("regulated", "overall", "retained", "held_out")
"""Groups that stand for a whole metric, best first; the gate reads the first of them that a metric has."""


class PromotionError(RealignmentError):
    """The gate cannot be evaluated on this table."""


class Check(TypedDict):
    """One condition of the gate. `value` is None where the quantity was not measured."""

    name: str
    value: float | None
    limit: float
    passed: bool
    detail: str


class GateReport(TypedDict):
    """The verdict, its reasons (failed checks, passed ones, what was not measured), and the checks."""

    passed: bool
    reasons: list[str]
    checks: list[Check]


class ChampionComparison(TypedDict):
    """A share of champion and candidate, by one judge on the same prompts, with a paired 95 % interval."""

    metric: str
    judge: str
    n: int
    champion: float
    candidate: float
    difference: float
    difference_low: float
    difference_high: float


class Champion(TypedDict):
    """The model that a candidate would replace: its version, and how the candidate compares with it."""

    version: str
    comparisons: list[ChampionComparison]


def evaluate_gate(
    table: pd.DataFrame,
    *,
    min_agreement_gain: float,
    min_preference_gain: float,
    max_over_refusal: float,
    max_kl_drift: float,
    max_capability_drop: float,
    champion_margin: float,
    champion: Champion | None = None,
    judge: str | None = None,
) -> GateReport:
    """Decide whether a candidate may become champion, by the evaluation table alone.

    Agreement must rise by `min_agreement_gain` with its 95 % interval above zero. Where it was not measured,
    preference accuracy decides, and a reason says so. Against the champion the candidate must not be
    inferior: the paired 95 % interval of the difference has to exclude a loss beyond the margin.

    Args:
        table: One row per metric, group and judge: columns `metric, group, judge, before, after, after_high,
            difference, difference_low, difference_high`; shares in 0..1, `kl_drift` in nats per token.
        min_agreement_gain: Smallest rise of agreement that passes, as a share.
        min_preference_gain: Smallest rise of preference accuracy that passes, as a share, where agreement was
            not measured.
        max_over_refusal: Largest share of prompts outside the policy that are answered as if inside, unless
            it was as large before.
        max_kl_drift: Largest KL(reference ‖ realigned) on retained prompts, in nats per token.
        max_capability_drop: Largest loss of accuracy; one whose interval includes zero passes too.
        champion_margin: Agreement that may be lost, and over-refusal that may be gained, against the
            champion, as a share.
        champion: The model that the candidate would replace; None: there is no champion for this policy.
        judge: The judge whose verdicts count; None: every judge in the table has to be satisfied.

    Returns:
        Whether the gate is passed, with reasons and checks.

    Raises:
        PromotionError: `judge` gave no verdict in this table.
    """
    rows = _select_judge(table, judge)
    agreement = list(_agreement_checks(rows, min_agreement_gain))
    # Preference accuracy stands in for agreement only where that was not measured.
    gains = agreement or list(_preference_checks(rows, min_preference_gain))
    costs = {
        "over_refusal": [_over_refusal(row, max_over_refusal) for row in _headline(rows, "over_refusal")],
        "kl_drift": [_kl_drift(row, max_kl_drift) for row in _headline(rows, "kl_drift")],
        "capability": [_capability(row, max_capability_drop) for row in _headline(rows, "capability")],
    }
    notes = [] if agreement else [_fallback_note(measured=bool(gains))]
    notes += [f"{name} was not measured, so the gate did not check it." for name in costs if not costs[name]]
    if champion is not None:
        costs["champion"] = list(_champion_checks(champion, judge, champion_margin))
        notes += [] if costs["champion"] else [_champion_note(champion["version"])]
    return _report(gains, list(chain(*costs.values())), notes)


def _report(gains: list[Check], costs: list[Check], notes: list[str]) -> GateReport:
    """Passed where there is a gain and every check holds; failed checks come first among the reasons."""
    checks = gains + costs
    reasons = [check["detail"] for check in sorted(checks, key=lambda check: check["passed"])]
    passed = bool(gains) and all(check["passed"] for check in checks)
    return {"passed": passed, "reasons": reasons + notes, "checks": checks}


def _select_judge(table: pd.DataFrame, judge: str | None) -> pd.DataFrame:
    """The rows of one judge, or of all, and those that need no judge."""
    judges = table["judge"].fillna("")
    names = sorted(set(judges) - {""})
    if judge is None or not names:
        return table.assign(judge=judges)
    if judge not in names:
        raise PromotionError(
            f"The gate should follow judge {judge!r}, but the evaluation table has {', '.join(names)}. "
            "Set the judge of the promotion parameters to one of these, or to null for all of them."
        )
    return table.assign(judge=judges)[judges.isin(["", judge])]


def _headline(rows: pd.DataFrame, metric: str) -> Iterator[dict[str, Any]]:
    """The rows that stand for a metric: its headline group, one per judge; all groups where it has none."""
    candidates = rows[rows["metric"] == metric]
    for group in _HEADLINES:
        is_group = candidates["group"] == group
        if is_group.any():
            candidates = candidates[is_group]
            break
    for row in candidates.to_dict("records"):
        yield {str(column): value for column, value in row.items()}


def _agreement_checks(rows: pd.DataFrame, limit: float) -> Iterator[Check]:
    for row in _headline(rows, "agreement"):
        yield _gain(row, "agreement", "Agreement with the new policy", limit)


def _champion_checks(champion: Champion, judge: str | None, margin: float) -> Iterator[Check]:
    """One check per metric and judge by which candidate and champion were compared."""
    for row in champion["comparisons"]:
        if judge in (None, row["judge"]):
            yield _not_inferior(row, champion["version"], margin)


def _not_inferior(row: ChampionComparison, version: str, margin: float) -> Check:
    """Check that with 95 % confidence the candidate is worse than the champion by no more than the margin."""
    by_judge = f" (judge: {row['judge']})" if row["judge"] else ""
    # The bound of the interval that is worse for the candidate, as a gain: a rise of over-refusal is a loss.
    if row["metric"] == "agreement":
        subject, name = "Agreement", f"not_below_champion{by_judge}"
        worst_gain = row["difference_low"]
    else:
        subject, name = "Over-refusal", f"not_above_champion{by_judge}"
        worst_gain = -row["difference_high"]
    detail = (
        f"{subject}{by_judge} is {_percent(row['candidate'])}, and that of champion version {version} on the "
        f"same {row['n']} prompts {_percent(row['champion'])}: a change of {_points(row['difference'])} "
        f"(95 % interval {_points(row['difference_low'])} to {_points(row['difference_high'])}); with that "
        f"confidence it must not be worse by more than {_points(margin).lstrip('+')}."
    )
    return _check(name, worst_gain, -margin, lambda value: value >= -margin, detail)


def _champion_note(version: str) -> str:
    return (
        f"Champion version {version} was not compared with the candidate: none of its answers to these "
        "prompts is stored with a verdict of these judges. Compare the two before you rely on the new one."
    )


def _preference_checks(rows: pd.DataFrame, limit: float) -> Iterator[Check]:
    for row in _headline(rows, "preference_accuracy"):
        yield _gain(row, "preference_accuracy", "Preference accuracy on held-out pairs", limit)


def _gain(row: dict[str, Any], name: str, subject: str, limit: float) -> Check:
    low = float(row["difference_low"])
    detail = (
        f"{subject}{_by(row)} went from {_percent(row['before'])} to {_percent(row['after'])}: a change of "
        f"{_points(row['difference'])} (95 % interval from {_points(low)}); needed are at least "
        f"{_points(limit)} and an interval above zero."
    )
    return _check(
        f"{name}{_by(row)}", row["difference"], limit, lambda value: value >= limit and low > 0, detail
    )


def _over_refusal(row: dict[str, Any], limit: float) -> Check:
    """What a judge finds before training too is a false alarm, or an error that training did not add."""
    before = float(row["before"])
    detail = (
        f"Over-refusal{_by(row)} went from {_percent(before)} to {_percent(row['after'])}; the limit is "
        f"{_percent(limit)}, or what it was before."
    )
    return _check(
        f"over_refusal{_by(row)}",
        row["after"],
        limit,
        lambda value: value <= limit or value <= before,
        detail,
    )


def _kl_drift(row: dict[str, Any], limit: float) -> Check:
    detail = f"KL drift is {float(row['after']):.4f} nats per token after training; the limit is {limit:g}."
    return _check("kl_drift", row["after"], limit, lambda value: value <= limit, detail)


def _capability(row: dict[str, Any], limit: float) -> Check:
    low = float(row["difference_low"])
    high = float(row["difference_high"])
    detail = (
        f"Capability went from {_percent(row['before'])} to {_percent(row['after'])}: a change of "
        f"{_points(row['difference'])} (95 % interval {_points(low)} to {_points(high)}); a loss may be at "
        f"most {_points(limit).lstrip('+')}, or within its interval of zero."
    )
    return _check(
        "capability", row["difference"], -limit, lambda value: value >= -limit or low <= 0 <= high, detail
    )


def _check(name: str, value: float, limit: float, holds: Callable[[float], bool], detail: str) -> Check:
    """A value that is not a number fails: what could not be measured is no ground for promotion."""
    value = float(value)
    if math.isnan(value):
        return {
            "name": name,
            "value": None,
            "limit": limit,
            "passed": False,
            "detail": f"{detail} It was not measurable.",
        }
    return {"name": name, "value": value, "limit": limit, "passed": bool(holds(value)), "detail": detail}


def _fallback_note(measured: bool) -> str:
    reason = (
        "Agreement with the new policy was not measured (no prompts, or no policy that a judge can apply)"
    )
    if measured:
        return f"{reason}; the gate used preference accuracy on held-out pairs instead."
    return f"{reason}, nor was preference accuracy: there is no evidence of a gain, so nothing is promoted."


def _by(row: dict[str, Any]) -> str:
    return f" (judge: {row['judge']})" if row["judge"] else ""


def _percent(share: float) -> str:
    return f"{100 * float(share):.1f} %"


def _points(share: float) -> str:
    return f"{100 * float(share):+.1f} points"
