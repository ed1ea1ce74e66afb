"""Metrics of a classifier on prompts that it was not trained on: accuracy, calibration, reliability."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realignment.oracles.cross_validation import CrossValidation
from realignment.records import Exchange
from realignment.statistics import Interval, wilson_interval

RESAMPLES = 1000
"""Bootstrap resamples of each interval."""
BINS = 10
"""Bins of confidence, from 0.5 to 1, of the reliability table and the calibration error."""


def report_validation(
    validation: CrossValidation, exchanges: Sequence[Exchange], labels: Sequence[bool], *, seed: int
) -> dict[str, Any]:
    """Return cross-validated metrics before and after calibration, with intervals that resample prompts.

    Precision, recall and F1 are those of "violates".

    Args:
        validation: Predictions on held-out folds, n of them.
        exchanges: The labelled exchanges, n.
        labels: Whether each complies, n.
        seed: Seed of the bootstrap.

    Returns:
        Counts, and under `raw` and `calibrated` each metric's value with its interval of 95 %.
    """
    truth = np.asarray(labels, dtype=bool)
    groups = pd.factorize(pd.Series([exchange.prompt for exchange in exchanges]))[0]
    rng = np.random.default_rng(seed)
    report: dict[str, Any] = {"n": validation.n, "prompts": int(groups.max()) + 1, "folds": validation.folds}
    report["complies"] = float(truth.mean())
    for name, probability in (("raw", validation.raw), ("calibrated", validation.calibrated)):
        resampled = [_compute_metrics(probability[i], truth[i]) for i in _resample_groups(groups, rng)]
        metrics: dict[str, dict[str, Any]] = {}
        for key, value in _compute_metrics(probability, truth).items():
            interval = _interval(value, [sample[key] for sample in resampled])
            metrics[key] = {"value": value, "interval": list(interval)}
        report[name] = metrics
    return report


def _resample_groups(groups: npt.NDArray[np.int64], rng: np.random.Generator) -> list[npt.NDArray[np.int64]]:
    """Draw groups with replacement, RESAMPLES times; of each draw the indices of the groups' members.

    Whole prompts, because responses to one prompt are not independent.
    """
    # Indices sorted by group, cut where the next group begins: one array per group.
    members = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])
    resamples = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(members), size=len(members))
        resamples.append(np.concatenate([members[i] for i in drawn]))
    return resamples


def _interval(value: float, samples: list[float]) -> Interval:
    """Return the bootstrap interval of 95 %, widened where it does not contain the value itself."""
    low, high = np.nanpercentile(samples, [2.5, 97.5])
    return Interval(min(value, float(low)), max(value, float(high)))


def _compute_metrics(probability: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Return the metrics of P(complies), shape (n,), with "violates" as the positive class."""
    alarm = probability < 0.5
    violates = ~truth
    hits = (alarm & violates).sum()
    alarms = alarm.sum()
    violations = violates.sum()
    return {
        "accuracy": float((alarm == violates).mean()),
        "precision": float(hits / alarms) if alarms else float("nan"),
        "recall": float(hits / violations) if violations else float("nan"),
        "f1": float(2 * hits / (alarms + violations)) if alarms + violations else float("nan"),
        "auc": _auc(probability, truth),
        "brier": float(((probability - truth) ** 2).mean()),
        "ece": _ece(probability, truth),
    }


def _auc(probability: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]) -> float:
    """Return P(a complying response scores above a violating one), ties count half (Mann & Whitney)."""
    import scipy.stats

    positive = int(truth.sum())
    if not 0 < positive < len(truth):
        return float("nan")
    ranks = scipy.stats.rankdata(probability)
    # The rank sum of the complying responses, less its least value: pairs in the right order.
    excess = ranks[truth].sum() - positive * (positive + 1) / 2
    return float(excess / (positive * (len(truth) - positive)))


BinnedVerdicts = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.bool_]]
"""Bin, confidence, and whether it is right, of every verdict, shape (n,) each."""


def _bin_verdicts(probability: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]) -> BinnedVerdicts:
    confidence = np.maximum(probability, 1 - probability)
    # Confidence of 0.5 to 1 in BINS bins of the same width; 1 itself belongs to the last.
    bins = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    return bins, confidence, (probability >= 0.5) == truth


def _ece(probability: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]) -> float:
    """Return the expected calibration error: |accuracy − confidence| of each bin, weighted by its size."""
    bins, confidence, is_right = _bin_verdicts(probability, truth)
    gaps = np.bincount(bins, weights=is_right - confidence, minlength=BINS)  # (BINS,)
    return float(np.abs(gaps).sum() / len(truth))


def tabulate_reliability(validation: CrossValidation, labels: Sequence[bool]) -> pd.DataFrame:
    """Return accuracy by confidence: columns bin, confidence, accuracy, low, high, share, n.

    Args:
        validation: Predictions on held-out folds; the calibrated ones are tabulated.
        labels: Whether each exchange complies, n.

    Returns:
        One row per bin that has verdicts; low and high bound the accuracy at 95 %.
    """
    columns = _bin_verdicts(validation.calibrated, np.asarray(labels, dtype=bool))
    table = pd.DataFrame(dict(zip(("bin", "confidence", "right"), columns, strict=True)))
    rows = []
    for number, part in table.groupby("bin"):
        n = len(part)
        right = int(part["right"].sum())
        low, high = wilson_interval(right, n)
        rows.append((number, part["confidence"].mean(), right / n, low, high, n / len(table), n))
    return pd.DataFrame(rows, columns=["bin", "confidence", "accuracy", "low", "high", "share", "n"])


def tabulate_folds(validation: CrossValidation, labels: Sequence[bool]) -> pd.DataFrame:
    """Return the calibrated metrics fold by fold: `step` is the fold, from 1."""
    truth = np.asarray(labels, dtype=bool)
    rows = []
    for fold in range(validation.folds):
        inside = validation.fold == fold
        rows.append(
            {"step": fold + 1, "n": int(inside.sum())}
            | _compute_metrics(validation.calibrated[inside], truth[inside])
        )
    return pd.DataFrame(rows)
