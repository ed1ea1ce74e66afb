"""The gate that a candidate has to pass to become champion: rules over the evaluation table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypedDict

import pandas as pd

from realignment.parameters import GateRule, RuleCondition
from realignment.promotion.sample_size import explain_too_few
from realignment.promotion.wording import describe_check
from realignment.records import RealignmentError

Row = dict[str, Any]
"""A row of the evaluation table (`evaluation.table.COLUMNS`); `judge` is "" where no judge is involved."""


class PromotionError(RealignmentError):
    """The candidate did not pass the gate, and the gate is enforced."""


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


@dataclass(frozen=True)
class Champion:
    """The model that a candidate would replace, and how the two compare.

    Attributes:
        version: In the registry.
        comparisons: As the evaluation table, where `before` is the champion and `after` the candidate, on the
            same prompts by the same judge; empty where the champion's answers are not stored.
    """

    version: str
    comparisons: pd.DataFrame


@dataclass
class _Findings:
    """What the rules have found so far."""

    checks: list[Check]
    notes: list[str]


def evaluate_gate(
    table: pd.DataFrame,
    rules: Sequence[GateRule],
    *,
    headline_judges: Mapping[str, str] | None = None,
    champion: Champion | None = None,
    audit: Check | None = None,
) -> GateReport:
    """Decide whether a candidate may become champion, by the evaluation table and the rules alone.

    The candidate passes if at least one rule found something to check, and every check holds. A figure that
    a rule requires and the table lacks, and one that is not a number, fail: what could not be measured is no
    ground for promotion.

    Args:
        table: One row per metric, group and judge, columns `evaluation.table.COLUMNS`.
        rules: The conditions; see `parameters.gate.GateRule`.
        headline_judges: Metric → the judge that `judge: best` means; for a metric that is missing every judge
            has to be satisfied.
        champion: The model that the candidate would replace; None: there is none for this policy, so that
            rules with `against: champion` have nothing to check.
        audit: From `promotion.audit.check_audit`; None: no audit is required.

    Returns:
        Whether the gate is passed, with reasons and checks.
    """
    findings = _Findings([], [])
    rows = _read_rows(table)
    for rule in rules:
        if rule.when is not None:
            if not _holds(rule.when, rows):
                continue
            if rule.when.absent is not None:
                findings.notes.append(_stand_in_note(rule.name, rule.when))
        if rule.against == "before":
            _apply(rule, rows, headline_judges or {}, None, findings)
        elif champion is not None:
            compared = _read_rows(champion.comparisons)
            _apply(rule, compared, headline_judges or {}, champion.version, findings)
    findings.notes += _not_applied(rules, rows)
    return _report(findings, audit)


def enforce(report: Mapping[str, Any]) -> None:
    """Stop the run if the gate was not passed.

    Args:
        report: The `gate_report`.

    Raises:
        PromotionError: It was not passed; with the reasons.
    """
    if not report["passed"]:
        failed = [check["detail"] for check in report["checks"] if not check["passed"]]
        reasons = "\n".join(f"- {reason}" for reason in failed or report["reasons"])
        raise PromotionError(
            f"The gate did not pass, and `promotion.gate.enforce` is true:\n{reasons}\nNothing is lost: the "
            "model is registered as candidate, and summary and report are written. Improve the model, or "
            "change `promotion.gate.rules` for a reason that does not come from this result."
        )


def read_headline_judges(evaluation_judge: Mapping[str, Any]) -> dict[str, str]:
    """Read which judge stands for each metric.

    Args:
        evaluation_judge: The catalog entry; its field `headline` maps a metric to a mapping with `judge`
            (`evaluation.judges.pick_headlines`).

    Returns:
        Metric → judge; empty without judges.
    """
    return {metric: str(choice["judge"]) for metric, choice in evaluation_judge.get("headline", {}).items()}


def _read_rows(table: pd.DataFrame) -> list[Row]:
    if table.empty:
        return []
    records = table.assign(judge=table["judge"].fillna("")).to_dict("records")
    return [{str(column): value for column, value in record.items()} for record in records]


def _holds(condition: RuleCondition, rows: Sequence[Row]) -> bool:
    metric = condition.present or condition.absent
    measured = any(row["metric"] == metric and condition.group in (None, row["group"]) for row in rows)
    return measured == (condition.present is not None)


def _apply(
    rule: GateRule,
    rows: Sequence[Row],
    headline_judges: Mapping[str, str],
    champion: str | None,
    findings: _Findings,
) -> None:
    """Check every group that the rule speaks of, by the judges that it names."""
    candidates = [row for row in rows if row["metric"] == rule.metric]
    groups = list(dict.fromkeys(row["group"] for row in candidates if fnmatchcase(row["group"], rule.group)))
    for group in groups or [rule.group]:
        of_group = [row for row in candidates if row["group"] == group]
        selected = [row for row in of_group if _counts(rule, row["judge"], headline_judges)]
        if not selected:
            _note_missing(rule, group, of_group, champion, findings)
            continue
        checks = [_check(rule, row, champion) for row in selected]
        if rule.judge == "any" and any(check["passed"] for check in checks):
            findings.notes += [
                f"Not counted, because another judge is satisfied: {check['detail']}"
                for check in checks
                if not check["passed"]
            ]
            checks = [check for check in checks if check["passed"]]
        findings.checks += checks


def _counts(rule: GateRule, judge: str, headline_judges: Mapping[str, str]) -> bool:
    """Whether the rule speaks of this judge; a figure without judge counts unless a judge is named."""
    if not judge:
        return rule.judge in ("best", "all", "any", "none")
    if rule.judge in ("all", "any"):
        return True
    if rule.judge == "best":
        # The judge that leads for a metric leads for the same metric without its errors.
        best = headline_judges.get(rule.metric.removesuffix("_corrected"))
        return judge == headline_judges.get(rule.metric, best or judge)
    return judge == rule.judge


def _check(rule: GateRule, row: Row, champion: str | None) -> Check:
    side, end = rule.compared_side, rule.compared_bound
    bound = float(row[side if end == "point" else f"{side}_{end}"])
    detail = describe_check(rule, row, bound, champion=champion)
    passed = bound >= rule.limit if rule.is_floor else bound <= rule.limit
    if math.isnan(bound):
        detail += " It could not be measured: the interval has no such bound."
    elif not passed:
        detail += explain_too_few(rule, row)
    return {
        "name": _name(rule, row["group"], row["judge"]),
        "value": None if math.isnan(bound) else bound,
        "limit": rule.limit,
        "passed": passed,
        "detail": detail,
    }


def _name(rule: GateRule, group: str, judge: str) -> str:
    of_group = f", {group}" if group != rule.group else ""
    return f"{rule.name}{of_group} (judge: {judge})" if judge else f"{rule.name}{of_group}"


def _note_missing(
    rule: GateRule, group: str, rows: Sequence[Row], champion: str | None, findings: _Findings
) -> None:
    """A figure that a rule speaks of and that is not there fails where it is required, else it is noted."""
    judges = ", ".join(sorted({row["judge"] or "none" for row in rows}))
    found = f"only by other judges ({judges})" if rows else "not at all"
    where = "" if champion is None else f", compared with champion version {champion},"
    detail = f"{rule.name}: {rule.metric}, {group} (judge: {rule.judge}){where} was measured {found}"
    if rule.required:
        detail += "; the rule requires it, with the limit " + f"{rule.limit:g}."
        name = _name(rule, group, "")
        findings.checks.append(
            {"name": name, "value": None, "limit": rule.limit, "passed": False, "detail": detail}
        )
    else:
        findings.notes.append(f"{detail}, so the gate did not check it.")


def _stand_in_note(name: str, condition: RuleCondition) -> str:
    group = f", {condition.group}" if condition.group else ""
    return (
        f"{condition.absent}{group} was not measured (no prompts, or no policy that a judge can apply); "
        f"the rule {name} stands in for it."
    )


def _not_applied(rules: Sequence[GateRule], rows: Sequence[Row]) -> list[str]:
    """Name the rules that wait for a figure which was not measured, so that none is left out silently."""
    waiting: dict[str, list[str]] = {}
    for rule in rules:
        if rule.when is not None and rule.when.present is not None and not _holds(rule.when, rows):
            group = f", {rule.when.group}" if rule.when.group else ""
            waiting.setdefault(f"{rule.when.present}{group}", []).append(rule.name)
    return [
        f"Not applied, because {figure} was not measured: {', '.join(names)}."
        for figure, names in waiting.items()
    ]


def _report(findings: _Findings, audit: Check | None) -> GateReport:
    """Failed checks come first among the reasons. An audit of the oracle says nothing about the candidate."""
    notes = list(findings.notes)
    if not findings.checks:
        notes.append("No rule found anything to check: there is no evidence, so nothing is promoted.")
    checks = findings.checks + ([] if audit is None else [audit])
    reasons = [check["detail"] for check in sorted(checks, key=lambda check: check["passed"])]
    passed = bool(findings.checks) and all(check["passed"] for check in checks)
    return {"passed": passed, "reasons": reasons + notes, "checks": checks}
