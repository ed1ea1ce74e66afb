"""Summarise a run in one small, stable document for users' scripts and CI."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

HEADLINES = {"agreement": "regulated", "over_refusal": "overall"}
"""Metric → the group that stands for it; capability is the worst task's (`worst_task`)."""

JUDGES = ("classifier", "rules", "")
"""Judges, first choice first: the classifier judges the answers without having labelled the pairs."""


def headline(table: pd.DataFrame, metric: str) -> dict[str, Any] | None:
    """Return the headline figures of a metric.

    Args:
        table: The evaluation table.
        metric: One of `HEADLINES`.

    Returns:
        before, after, difference, interval (of the difference), n, judge; None where it was not measured.
    """
    rows = table[(table["metric"] == metric) & (table["group"] == HEADLINES[metric])]
    for judge in JUDGES:
        verdicts = rows[rows["judge"].fillna("") == judge]
        if len(verdicts):
            return _figures(verdicts.iloc[0]) | {"judge": judge or None}
    return None


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
) -> dict[str, Any]:
    """Build the summary of a run.

    Args:
        table: The evaluation table.
        splits: Disposition → pairs.
        oracle: `oracle_report`.
        gate: `gate_report`.
        model: `registered_model`.
        timings: Seconds by stage, and peak memory in MiB.

    Returns:
        The fields that `docs/reference/outputs.md` lists under "Fields of summary.json".
    """
    return {
        **{metric: headline(table, metric) for metric in HEADLINES},
        "capability": worst_task(table),
        "splits": dict(splits),
        # The oracle `labels` is the truth itself, so its accuracy would always be 1.
        "oracle_accuracy": None if oracle["oracle"] == "labels" else oracle["accuracy"],
        "gate": {"passed": gate["passed"], "reasons": list(gate["reasons"])},
        "model": {key: model[key] for key in ("name", "version", "uri")},
        "seconds": dict(timings["seconds"]),
        "peak_memory_mib": timings["peak_memory_mib"],
    }
