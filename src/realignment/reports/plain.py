"""Say a result in sentences that need no statistics, and that are no rosier than the worst honest reading."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from realignment.records import HEADLINE_GROUPS
from realignment.reports.formats import share

_SUBJECTS = {
    "agreement": "answers to prompts that the new policy regulates follow it",
    "over_refusal": "answers to other prompts apply the policy where it does not apply",
}
"""Metric → what is counted."""


def describe_result(table: pd.DataFrame, headlines: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Describe agreement and over-refusal after training in one sentence each.

    The worst honest reading is the unfavourable end of the 95 % intervals over all judges, with a judge's
    measured errors taken out where they are known.

    Args:
        table: The evaluation table.
        headlines: Metric → its best-measured judge, from `evaluation_judge`.

    Returns:
        Sentences; none where no answer was judged.
    """
    sentences = []
    for metric, subject in _SUBJECTS.items():
        group = HEADLINE_GROUPS[metric]
        raw = _select(table, metric, group)
        if raw.empty:
            continue
        names = raw.index.tolist()
        chosen = headlines.get(metric, {}).get("judge")
        judge = str(chosen if chosen in names else names[0])
        corrected = _select(table, f"{metric}_corrected", group)
        row = raw.loc[judge]
        sentences.append(
            f"By the judge {judge}{_describe_quality(headlines.get(metric, {}))}, {share(row['after'])} of "
            f"{row['n']:.0f} {subject} after training ({share(row['before'])} before)"
            f"{_describe_correction(corrected, judge)}. {_describe_worst(metric, raw, corrected)}"
        )
    return sentences


def _select(table: pd.DataFrame, metric: str, group: str) -> pd.DataFrame:
    """Rows of a metric's group by judge; a judge without a name is ``""``."""
    rows = table[(table["metric"] == metric) & (table["group"] == group)]
    return rows.assign(judge=rows["judge"].fillna("")).drop_duplicates("judge").set_index("judge")


def _describe_quality(headline: Mapping[str, Any]) -> str:
    if not headline.get("n"):
        return " (never measured on labelled answers)"
    return (
        f" (which recognises {share(headline['sensitivity'])} of compliant and "
        f"{share(headline['specificity'])} of violating answers, measured on {headline['n']})"
    )


def _describe_correction(corrected: pd.DataFrame, judge: str) -> str:
    if judge not in corrected.index:
        return ""
    row = corrected.loc[judge]
    bounds = f"{share(row['after_low'])} to {share(row['after_high'])}"
    return f"; with the judge's errors taken out {share(row['after'])} (95 % interval {bounds})"


def _describe_worst(metric: str, raw: pd.DataFrame, corrected: pd.DataFrame) -> str:
    """The unfavourable bound over all judges, each corrected where it can be."""
    best_known = raw.copy()
    best_known.loc[corrected.index.intersection(raw.index)] = corrected
    scope = "over all judges and intervals" if len(raw) > 1 else "of its interval"
    if metric == "agreement":
        return f"The worst reading {scope} is {share(best_known['after_low'].min())}."
    return f"The worst reading {scope} is {share(best_known['after_high'].max())}."
