"""Measure how far people agree with each other: Krippendorff's α with its interval."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realignment.statistics import Interval

RESAMPLES = 4000


def krippendorff_alpha(counts: npt.NDArray[np.int64]) -> float:
    """Compute agreement of any number of annotators beyond chance, for nominal values; gaps are allowed.

    α = 1 − D_o / D_e (Krippendorff 2004, Content Analysis, ch. 11).

    Args:
        counts: How many annotators gave each value to each unit, shape (units, values).

    Returns:
        1 for full agreement, 0 for chance; NaN where there is no unit with two verdicts, or only one kind of
        verdict.
    """
    return float(_alpha(counts, np.ones((1, len(counts))))[0])


def _alpha(counts: npt.NDArray[np.int64], times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """α of each of R resamples, shape (R,); `times` (R, units) says how often each unit is in it."""
    annotators = counts.sum(axis=1)
    paired = annotators >= 2  # a lone verdict can agree with nobody
    counts = counts[paired]
    annotators = annotators[paired]
    times = times[:, paired]
    # Ordered pairs of unequal values in each unit; D_o weights each unit's by 1 / (annotators − 1).
    unequal_pairs = annotators**2 - (counts**2).sum(axis=1)
    observed = times @ (unequal_pairs / (annotators - 1))
    # D_e: the same over all values together, as if they were dealt to the units at random.
    totals = times @ counts  # shape (R, values)
    n = totals.sum(axis=1)
    expected = (n**2 - (totals**2).sum(axis=1)) / np.maximum(n - 1, 1)
    return np.asarray(1 - np.divide(observed, expected, out=np.full(len(n), np.nan), where=expected > 0))


def alpha_interval(counts: npt.NDArray[np.int64], rng: np.random.Generator) -> Interval:
    """Estimate the 95 % interval of α by resampling the units that two or more annotators have judged.

    Args:
        counts: How many annotators gave each value to each unit, shape (units, values).
        rng: Source of the resamples.

    Returns:
        The interval; NaN where α is.
    """
    counts = counts[counts.sum(axis=1) >= 2]
    if np.isnan(krippendorff_alpha(counts)):
        return Interval(np.nan, np.nan)
    times = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=RESAMPLES)
    low, high = np.nanpercentile(_alpha(counts, times.astype(float)), [2.5, 97.5])
    return Interval(float(low), float(high))


def report_reliability(verdicts: pd.DataFrame, *, unfilled: int, seed: int) -> dict[str, Any]:
    """Report who judged how much, and how far people agree; "unsure" counts as no value.

    Args:
        verdicts: From `review.verdicts.check_verdicts`.
        unfilled: Rows of the forms without a verdict.
        seed: Seed of the resampling.

    Returns:
        The `review_report`.
    """
    sure = verdicts[verdicts["complies"].notna()]
    table = pd.crosstab(sure["task_id"], sure["complies"].astype(bool)).reindex(
        columns=[True, False], fill_value=0
    )
    counts = table.to_numpy(np.int64)  # verdicts by task: complies, violates
    interval = alpha_interval(counts, np.random.default_rng(seed))
    words = verdicts["complies"].map({True: "complies", False: "violates"}).astype(object).fillna("unsure")
    by_annotator = {}
    for name, row in pd.crosstab(verdicts["annotator"], words).iterrows():
        by_annotator[str(name)] = {str(word): int(n) for word, n in row.items()}
    return {
        "verdicts": len(verdicts),
        "unfilled": unfilled,
        "tasks": int(verdicts["task_id"].nunique()),
        "by_annotator": by_annotator,
        "judged_by_two_or_more": int((counts.sum(axis=1) >= 2).sum()),
        "ties": int((counts[:, 0] == counts[:, 1]).sum()),
        "alpha": _or_none(krippendorff_alpha(counts)),
        "interval": [_or_none(end) for end in interval],
    }


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
