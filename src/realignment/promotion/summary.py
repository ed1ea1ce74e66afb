"""Summarise a run in one small, stable document for users' scripts and CI."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from realignment.records import HEADLINE_GROUPS


def headline(
    table: pd.DataFrame, metric: str, judges: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Any] | None:
    """Return the headline figures of a metric.

    Args:
        table: The evaluation table.
        metric: One of `HEADLINE_GROUPS`.
        judges: Metric → its best-measured judge (`judge`) and that judge's measured errors, from
            `evaluation.judges.pick_headlines`; a metric that is missing takes the first judge of the table.

    Returns:
        before, after, difference, interval (of the difference), n, judge; `judge_quality` (sensitivity,
        specificity, n; null: not measured), `corrected` (the same figures without the judge's errors; null:
        it cannot be corrected) and `judges`, the figures by every judge. None where it was not measured.
    """
    rows = _select(table, metric)
    if rows.empty:
        return None
    choice = dict((judges or {}).get(metric, {}))
    judge = choice.pop("judge", None)
    names = rows["judge"].tolist()
    judge = judge if judge in names else names[0]
    figures = _judged_figures(rows, judge)
    corrected = _select(table, f"{metric}_corrected", group=HEADLINE_GROUPS[metric])
    by_judge = [
        {**_judged_figures(rows, name), "corrected": _figures_or_none(corrected, name)}
        for name in dict.fromkeys(names)
    ]
    return {
        **figures,
        "judge_quality": choice if choice.get("n") else None,
        "corrected": _figures_or_none(corrected, judge),
        "judges": by_judge,
    }


def _select(table: pd.DataFrame, metric: str, group: str | None = None) -> pd.DataFrame:
    """The rows of a metric's headline group; a judge that is not there is ``""``."""
    rows = table[(table["metric"] == metric) & (table["group"] == (group or HEADLINE_GROUPS[metric]))]
    return rows.assign(judge=rows["judge"].fillna(""))


def _judged_figures(rows: pd.DataFrame, judge: str) -> dict[str, Any]:
    return _figures(rows[rows["judge"] == judge].iloc[0]) | {"judge": judge or None}


def _figures_or_none(rows: pd.DataFrame, judge: str) -> dict[str, Any] | None:
    return _judged_figures(rows, judge) if (rows["judge"] == judge).any() else None


def worst_task(table: pd.DataFrame) -> dict[str, Any] | None:
    """Return the figures of the task whose accuracy may have fallen furthest.

    Args:
        table: The evaluation table.

    Returns:
        As of `headline`, with `task`, of the task with the lowest lower bound of the difference; None where
        capability was not measured.
    """
    tasks = table[(table["metric"] == "capability") & table["group"].str.startswith("task:")]
    if tasks.empty:
        return None
    row = tasks.sort_values("difference_low", kind="stable", na_position="last").iloc[0]
    return _figures(row) | {"judge": None, "task": str(row["group"]).removeprefix("task:")}


def _figures(row: Any) -> dict[str, Any]:
    return {
        "before": float(row["before"]),
        "after": float(row["after"]),
        "difference": float(row["difference"]),
        "interval": [float(row["difference_low"]), float(row["difference_high"])],
        "n": int(row["n"]),
    }


def summarize(
    table: pd.DataFrame,
    *,
    splits: Mapping[str, int],
    oracle: Mapping[str, Any],
    gate: Mapping[str, Any],
    model: Mapping[str, Any],
    timings: Mapping[str, Any],
    judges: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Build the summary of a run.

    Args:
        table: The evaluation table.
        splits: Disposition → pairs.
        oracle: `oracle_report`.
        gate: `gate_report`.
        model: `registered_model`.
        timings: Seconds by stage, and peak memory in MiB.
        judges: The best-measured judge of each metric (see `headline`).

    Returns:
        The fields that `docs/reference/outputs.md` lists under "Fields of summary.json".
    """
    return {
        **{metric: headline(table, metric, judges) for metric in HEADLINE_GROUPS},
        "capability": worst_task(table),
        "splits": dict(splits),
        # The oracle `labels` is the truth itself, so its accuracy would always be 1.
        "oracle_accuracy": None if oracle["oracle"] == "labels" else oracle["accuracy"],
        "gate": {"passed": gate["passed"], "reasons": list(gate["reasons"])},
        "model": {key: model[key] for key in ("name", "version", "uri")},
        "seconds": dict(timings["seconds"]),
        "peak_memory_mib": timings["peak_memory_mib"],
    }
