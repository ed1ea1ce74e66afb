"""The tables of a run as the lines that the page shows."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from realignment.records import Disposition
from realignment.reports import formats
from realignment.reports.agreement import in_order
from realignment.reports.audit import scores


def records(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    """One mapping per row, nulls as None; empty where there is no table."""
    if table is None or table.empty:
        return []
    cells = table.astype(object).where(table.notna(), None)
    return [{str(column): cell for column, cell in row.items()} for row in cells.to_dict("records")]


def split_counts(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Every disposition with its count and its share of all pairs."""
    total = sum(counts.values())
    return [
        {"name": str(d), "n": counts.get(d, 0), "share": counts.get(d, 0) / total if total else None}
        for d in Disposition
    ]


def refused_rows(table: pd.DataFrame | None) -> list[tuple[str, int]]:
    """Reasons for which rows of the source were not used, the most frequent first."""
    if table is None or table.empty:
        return []
    return [(str(reason), int(n)) for reason, n in table["reason"].value_counts().items()]


def metric_blocks(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    """The evaluation table as text, one block per metric, groups in the figure's order."""
    if table is None or table.empty:
        return []
    blocks = []
    for metric, rows in table.groupby("metric", sort=False):
        order = in_order(rows["group"])
        ranked = rows.assign(rank=rows["group"].astype(str).map(order.index)).sort_values(
            "rank", kind="stable"
        )
        lines = [_metric_line(str(metric), row) for row in records(ranked)]
        blocks.append({"metric": str(metric), "unit": _unit(str(metric), lines), "lines": lines})
    return blocks


def _unit(metric: str, lines: list[dict[str, Any]]) -> str:
    return "%" if metric in formats.SHARES else str(lines[0]["unit"] or "")


def _metric_line(metric: str, row: dict[str, Any]) -> dict[str, Any]:
    low, high = row["difference_low"], row["difference_high"]
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


def audit_of(report: Mapping[str, Any] | None, triage: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What an audit of these very splits found; None without one: an audit of others says nothing of them.

    Args:
        report: `audit_report`.
        triage: `triage_manifest` of the run.
    """
    if not report or not triage or report["triage"] != triage["outputs"]:
        return None
    metrics = [
        {"scope": scope, "group": group, "metric": metric, **figures}
        for scope, groups in report["metrics"].items()
        for group, found in groups.items()
        for metric, figures in found.items()
    ]
    table = pd.DataFrame(metrics).astype(dict.fromkeys(("value", "low", "high"), float))
    named = {(row["scope"], row["group"], row["metric"]): row for row in metrics}
    tiles = [
        {
            "label": label,
            "value": formats.number(row["value"]) if key[2] == "kappa" else formats.share(row["value"]),
            "interval": formats.interval("" if key[2] == "kappa" else "agreement", row["low"], row["high"]),
            "n": row["n"],
        }
        for key, label in AUDITED.items()
        if (row := named.get(key)) is not None
    ]
    shown = table[
        ~table["group"].isin(["chosen", "rejected"])
    ]  # by kind of response they are in `audit_scores_figure`
    return {"report": report, "tiles": tiles, "figure": scores(shown)}


def writer_lines(report: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """One mapping per writer of corrections: what it wrote, what passed, and what was taken of it."""
    return [
        {"writer": writer, "used": (report or {})["corrected_by"].get(writer, 0), **facts}
        for writer, facts in (report or {}).get("writers", {}).items()
    ]


def leakage_lines(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    """The headline rows of `correction_leakage` as text; style and rules are in the figure."""
    names = {"agreement": "complies", "length": "words", "told apart": "AUC of telling them apart"}
    return [
        {
            "writer": row["writer"],
            "name": names[row["group"]],
            "people": formats.quantity(metric, row["people"]),
            "machine": formats.quantity(metric, row["value"]),
            "difference": formats.difference(metric, row["difference"]),
            "interval": formats.interval(metric, row["low"], row["high"], signed=True),
            "n": f"{row['n_people']} and {row['n_writer']}",
        }
        for row in records(table)
        if row["group"] in names
        for metric in ["agreement" if row["unit"] == "share" else ""]
    ]


def pick_answers(responses: pd.DataFrame, *, per_kind: int = 8) -> pd.DataFrame:
    """The first answers of every kind of prompt, in the given order: enough to read, few enough to print."""
    if responses.empty:
        return responses
    return responses[responses.groupby("kind").cumcount() < per_kind]


def answers(responses: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Every given response pair with one badge per judge and time."""
    shown = []
    for row in records(responses):
        judges = [column.removeprefix("after_") for column in row if column.startswith("after_")]
        sides = [
            {
                "time": time,
                "text": row[time],
                "badges": [_badge(row.get(f"{time}_{judge}"), row["kind"], judge) for judge in judges],
            }
            for time in ("before", "after")
        ]
        tags = [str(row[c]) for c in ("kind", "domain", "origin") if row.get(c)]
        shown.append({"prompt": row["prompt"], "tags": tags, "sides": sides})
    return shown


def _badge(holds: bool | None, kind: str | None, judge: str) -> dict[str, str]:
    if holds is None:
        return {"judge": judge, "text": "not judged", "class": "unknown"}
    if kind in ("ordinary", "look_alike"):
        return {
            "judge": judge,
            "text": "direct" if holds else "over-refuses",
            "class": "good" if holds else "bad",
        }
    return {"judge": judge, "text": "complies" if holds else "violates", "class": "good" if holds else "bad"}


def flat(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Leaves of a nested report as (name, text)."""
    leaves: list[tuple[str, str]] = []
    for key, value in facts.items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        if isinstance(value, Mapping):
            leaves += flat(value, prefix=f"{name}: ")
        elif isinstance(value, (list, tuple)):
            texts = [str(v) if isinstance(v, (dict, list)) else formats.number(v) for v in value]
            leaves.append((name, ", ".join(texts)))
        else:
            leaves.append((name, formats.number(value)))
    return leaves


def plain(value: Any) -> Any:
    """Nested parameters as what YAML can write; anything else as its text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
