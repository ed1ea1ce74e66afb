"""Turn the tables of a run into the lines that the page shows."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from realignment.records import Disposition, judge_names
from realignment.reports import formats
from realignment.reports.agreement import sort_groups
from realignment.reports.audit import draw_scores


def records(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Return one mapping per row, nulls as None; an empty list where there is no table."""
    if table is None or table.empty:
        return []
    cells = table.astype(object).where(table.notna(), None)
    return [{str(column): cell for column, cell in row.items()} for row in cells.to_dict("records")]


def split_counts(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return every disposition with its count and its share of all pairs."""
    total = sum(counts.values())
    lines = []
    for disposition in Disposition:
        n = counts.get(disposition, 0)
        lines.append({"name": str(disposition), "n": n, "share": n / total if total else None})
    return lines


def count_rejection_reasons(table: pd.DataFrame | None) -> list[tuple[str, int]]:
    """Count the reasons for which rows of the source were rejected, the most frequent first."""
    if table is None or table.empty:
        return []
    return [(str(reason), int(n)) for reason, n in table["reason"].value_counts().items()]


def metric_blocks(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Return the evaluation table as text, one block per metric, groups in the figure's order."""
    if table is None or table.empty:
        return []
    blocks = []
    for metric, rows in table.groupby("metric", sort=False):
        order = sort_groups(rows["group"])
        ranked = rows.assign(rank=rows["group"].astype(str).map(order.index)).sort_values(
            "rank", kind="stable"
        )
        lines = [_metric_line(str(metric), row) for row in records(ranked)]
        blocks.append({"metric": str(metric), "unit": _unit(str(metric), lines), "lines": lines})
    return blocks


def _unit(metric: str, lines: list[dict[str, Any]]) -> str:
    return "%" if metric in formats.SHARES else str(lines[0]["unit"] or "")


def _metric_line(metric: str, row: dict[str, Any]) -> dict[str, Any]:
    low = row["difference_low"]
    high = row["difference_high"]
    return {
        "group": str(row["group"]),
        "judge": row["judge"] or "",
        "n": formats.number(row["n"]),
        "unit": row.get("unit"),
        "before": formats.quantity(metric, row["before"]),
        "before_interval": formats.interval(metric, row["before_low"], row["before_high"]),
        "after": formats.quantity(metric, row["after"]),
        "after_interval": formats.interval(metric, row["after_low"], row["after_high"]),
        "difference": formats.difference(metric, row["difference"]),
        "difference_interval": formats.interval(metric, low, high, signed=True),
        "clear_of_zero": low is not None and high is not None and (low > 0 or high < 0),
        "p": formats.p_value(row["p_value"]),
        "test": row["test"] or "",
    }


AUDITED = {
    ("disposition", "all pairs", "misrouted"): "Misrouted, of the pairs outside REVIEW",
    ("disposition", "all pairs", "accuracy"): "Pairs with the right disposition",
    ("verdict", "all verdicts", "accuracy"): "Right verdicts",
    ("verdict", "all verdicts", "kappa"): "Cohen's κ of the verdicts",
}
"""Scope, group and metric of an audit's figures → how the page's tiles call them."""


def audit_section(
    report: Mapping[str, Any] | None, triage: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Return what the page shows of an audit.

    Args:
        report: `audit_report`.
        triage: `triage_manifest` of the run.

    Returns:
        report, tiles and figure; None without an audit of these splits (an audit of others does not count).
    """
    if not report or not triage or report["triage"] != triage["outputs"]:
        return None
    figures = _flatten_metrics(report["metrics"])
    tiles = []
    for key, label in AUDITED.items():
        row = figures.get(key)
        if row is None:
            continue
        kind = "" if key[2] == "kappa" else "agreement"  # κ is a number, the others are shares
        tiles.append(
            {
                "label": label,
                "value": formats.quantity(kind, row["value"]),
                "interval": formats.interval(kind, row["low"], row["high"]),
                "n": row["n"],
            }
        )
    table = pd.DataFrame(list(figures.values())).astype(dict.fromkeys(("value", "low", "high"), float))
    # Figures by kind of response are in `audit_scores_figure` alone.
    overall = table[~table["group"].isin(["chosen", "rejected"])]
    return {"report": report, "tiles": tiles, "figure": draw_scores(overall)}


def _flatten_metrics(metrics: Mapping[str, Any]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """One row per (scope, group, metric) of an audit report's nested figures."""
    rows = {}
    for scope, groups in metrics.items():
        for group, figures in groups.items():
            for metric, figure in figures.items():
                rows[scope, group, metric] = {"scope": scope, "group": group, "metric": metric, **figure}
    return rows


def writer_lines(report: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return one mapping per writer of corrections: how many it wrote, how many pass, how many are used."""
    if not report:
        return []
    return [
        {"writer": writer, "used": report["corrected_by"].get(writer, 0), **facts}
        for writer, facts in report.get("writers", {}).items()
    ]


def leakage_lines(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Return the headline rows of `correction_leakage` as text; style and rules are in the figure."""
    names = {"agreement": "complies", "length": "words", "told apart": "AUC of telling them apart"}
    lines = []
    for row in records(table):
        if row["group"] not in names:
            continue
        metric = "agreement" if row["unit"] == "share" else ""  # a metric that is shown in percent, or not
        lines.append(
            {
                "writer": row["writer"],
                "name": names[row["group"]],
                "people": formats.quantity(metric, row["people"]),
                "machine": formats.quantity(metric, row["value"]),
                "difference": formats.difference(metric, row["difference"]),
                "interval": formats.interval(metric, row["low"], row["high"], signed=True),
                "n": f"{row['n_people']} and {row['n_writer']}",
            }
        )
    return lines


def pick_answers(responses: pd.DataFrame, *, per_kind: int = 8) -> pd.DataFrame:
    """Return the first answers of every kind of prompt, in order: enough to read, few enough for a page."""
    if responses.empty:
        return responses
    return responses[responses.groupby("kind").cumcount() < per_kind]


def answer_lines(responses: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Return the answers before and after to every prompt, with one badge per judge and time."""
    lines = []
    for row in records(responses):
        judges = judge_names(row)
        sides = []
        for time in ("before", "after"):
            badges = [_badge(row.get(f"{time}_{judge}"), row["kind"], judge) for judge in judges]
            sides.append({"time": time, "text": row[time], "badges": badges})
        tags = [str(row[column]) for column in ("kind", "domain", "origin") if row.get(column)]
        lines.append({"prompt": row["prompt"], "tags": tags, "sides": sides})
    return lines


def _badge(complies: bool | None, kind: str | None, judge: str) -> dict[str, str]:
    if complies is None:
        return {"judge": judge, "text": "not judged", "class": "unknown"}
    good, bad = ("direct", "over-refuses") if kind in ("ordinary", "look_alike") else ("complies", "violates")
    if complies:
        return {"judge": judge, "text": good, "class": "good"}
    return {"judge": judge, "text": bad, "class": "bad"}


def judge_lines(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return one line per judge: what it leads, what it has seen, how often it is right, and in which domain.

    Args:
        report: `evaluation_judge`; may be empty.

    Returns:
        Texts: judge, leads, seen, accuracy, and errors (sensitivity and specificity by domain).
    """
    leads: dict[str, list[str]] = {}
    for metric, choice in report.get("headline", {}).items():
        leads.setdefault(choice["judge"], []).append(formats.name_of(metric))
    return [
        {
            "judge": judge,
            "leads": ", ".join(leads.get(judge, [])),
            "seen": report.get("seen", {}).get(judge, "nothing of the training data"),
            "accuracy": _describe_accuracy(report.get("accuracy", {}).get(judge)),
            "errors": _describe_errors(report.get("quality", {}).get(judge, {})),
        }
        for judge in report.get("judges", [])
    ]


def _describe_accuracy(accuracy: Mapping[str, Any] | None) -> str:
    if accuracy is None:
        return "not measured"
    low, high = accuracy["interval"]
    bounds = formats.interval("agreement", low, high)
    return f"{formats.share(accuracy['accuracy'])} of {accuracy['n']} ({bounds})"


def _describe_errors(by_domain: Mapping[str, Mapping[str, int]]) -> str:
    """Complying answers that it recognises, and violating ones, as counts: too few for a share are seen."""
    texts = []
    for domain, counts in by_domain.items():
        complying = counts["true_positives"] + counts["false_negatives"]
        violating = counts["true_negatives"] + counts["false_positives"]
        texts.append(
            f"{domain or 'no domain'}: {counts['true_positives']} of {complying} compliant, "
            f"{counts['true_negatives']} of {violating} violating"
        )
    return "; ".join(texts)


def to_plain(value: Any) -> Any:
    """Convert nested parameters to what YAML can write; other values become their text."""
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
