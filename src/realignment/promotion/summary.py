"""The run in one small, stable document for people's scripts and CI."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

HEADLINES = {"agreement": "regulated", "over_refusal": "overall", "capability": "overall"}
"""Metric → the group that stands for it."""

JUDGES = ("classifier", "rules", "")
"""Whose verdict is the headline: the judge that did not label the training data first."""


def headline(table: pd.DataFrame, metric: str) -> dict[str, Any] | None:
    """The headline row of a metric as before, after, difference, interval, n; None where not measured."""
    rows = table[(table["metric"] == metric) & (table["group"] == HEADLINES[metric])]
    for judge in JUDGES:
        found = rows[rows["judge"].fillna("") == judge]
        if len(found):
            row = found.iloc[0]
            return {
                "before": float(row["before"]),
                "after": float(row["after"]),
                "difference": float(row["difference"]),
                "interval": [float(row["difference_low"]), float(row["difference_high"])],
                "n": int(row["n"]),
                "judge": judge or None,
            }
    return None


def summarize(
    table: pd.DataFrame,
    *,
    splits: Mapping[str, int],
    oracle: Mapping[str, Any],
    gate: Mapping[str, Any],
    model: Mapping[str, Any],
    timings: Mapping[str, Any],
) -> dict[str, Any]:
    """The summary; see `docs/reference/outputs.md` for its fields."""
    return {
        **{metric: headline(table, metric) for metric in HEADLINES},
        "splits": dict(splits),
        # Labels are the truth itself: that they agree with it says nothing.
        "oracle_accuracy": None if oracle["oracle"] == "labels" else oracle["accuracy"],
        "gate": {"passed": gate["passed"], "reasons": list(gate["reasons"])},
        "model": {key: model[key] for key in ("name", "version", "uri")},
        "seconds": dict(timings["seconds"]),
        "peak_memory_mib": timings["peak_memory_mib"],
    }
