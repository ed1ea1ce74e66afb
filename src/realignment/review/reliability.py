"""How far people agree with each other: Krippendorff's α with its interval."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realignment.statistics import Interval

RESAMPLES = 4000


def krippendorff_alpha(counts: npt.NDArray[np.int64]) -> float:
    """Agreement of any number of annotators beyond chance, for names without order; gaps are allowed.

    α = 1 − D_o / D_e (Krippendorff 2004, Content Analysis, ch. 11). 1 is full agreement, 0 what chance gives;
    NaN where there is no unit with two verdicts, or only one kind of verdict.

    Args:
        counts: How many annotators gave each value to each unit, shape (units, values).
    """
    return float(_alpha(counts, np.ones((1, len(counts))))[0])


def _alpha(counts: npt.NDArray[np.int64], times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """α of each resample; `times` (R, units) says how often each unit is in it."""
    annotators = counts.sum(axis=1)
    paired = annotators >= 2  # a lone verdict can agree with nobody
    counts, annotators, times = counts[paired], annotators[paired], times[:, paired]
    disagreeing = annotators**2 - (counts**2).sum(axis=1)
    observed = times @ (disagreeing / (annotators - 1))
    totals = times @ counts
    n = totals.sum(axis=1)
    expected = (n**2 - (totals**2).sum(axis=1)) / np.maximum(n - 1, 1)
    return np.asarray(1 - np.divide(observed, expected, out=np.full(len(n), np.nan), where=expected > 0))


def alpha_interval(counts: npt.NDArray[np.int64], rng: np.random.Generator) -> Interval:
    """95 % by resampling the units that two or more have judged; NaN where α is."""
    counts = counts[counts.sum(axis=1) >= 2]
    if np.isnan(krippendorff_alpha(counts)):
        return Interval(np.nan, np.nan)
    times = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=RESAMPLES)
    low, high = np.nanpercentile(_alpha(counts, times.astype(float)), [2.5, 97.5])
    return Interval(float(low), float(high))


def report_reliability(verdicts: pd.DataFrame, *, unfilled: int, seed: int) -> dict[str, Any]:
    """Who judged how much, and how far people agree. An annotator who was unsure has given no value.

    Args:
        verdicts: From `review.verdicts.check_verdicts`.
        unfilled: Rows of the forms without a verdict.
        seed: Of the resampling.
    """
    sure = verdicts[verdicts["complies"].notna()]
    table = pd.crosstab(sure["task_id"], sure["complies"].astype(bool)).reindex(
        columns=[True, False], fill_value=0
    )
    counts = table.to_numpy(np.int64)
    interval = alpha_interval(counts, np.random.default_rng(seed))
    words = verdicts["complies"].map({True: "complies", False: "violates"}).astype(object).fillna("unsure")
    by_annotator = pd.crosstab(verdicts["annotator"], words)
    return {
        "verdicts": len(verdicts),
        "unfilled": unfilled,
        "tasks": int(verdicts["task_id"].nunique()),
        "by_annotator": {
            str(k): {str(w): int(n) for w, n in row.items()} for k, row in by_annotator.T.items()
        },
        "judged_by_two_or_more": int((counts.sum(axis=1) >= 2).sum()),
        "ties": int((counts[:, 0] == counts[:, 1]).sum()),
        "alpha": _or_none(krippendorff_alpha(counts)),
        "interval": [_or_none(end) for end in interval],
    }


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
