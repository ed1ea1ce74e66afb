"""A classifier that judges: kept, read back, and measured on prompts that it did not know."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realignment.oracles.classifier import CrossValidation
from realignment.records import Exchange
from realignment.statistics import Interval, wilson_interval

RESAMPLES = 1000


BINS = 10


def report_validation(
    validation: CrossValidation, exchanges: Sequence[Exchange], labels: Sequence[bool], *, seed: int
) -> dict[str, Any]:
    """Cross-validated figures, before and after calibration, with intervals that resample prompts.

    Precision, recall and F1 are those of "violates".
    """
    truth = np.asarray(labels, dtype=bool)
    groups = pd.factorize(pd.Series([exchange.prompt for exchange in exchanges]))[0]
    rng = np.random.default_rng(seed)
    report: dict[str, Any] = {"n": validation.n, "prompts": int(groups.max()) + 1, "folds": validation.folds}
    report["complies"] = float(truth.mean())
    for name, probability in (("raw", validation.raw), ("calibrated", validation.calibrated)):
        drawn = [_figures(probability[i], truth[i]) for i in _resamples(groups, rng)]
        whole = _figures(probability, truth)
        report[name] = {
            key: {"value": value, "interval": list(_interval(value, [figures[key] for figures in drawn]))}
            for key, value in whole.items()
        }
    return report


def _resamples(groups: npt.NDArray[np.int64], rng: np.random.Generator) -> list[npt.NDArray[np.int64]]:
    members = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])
    return [
        np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        for _ in range(RESAMPLES)
    ]


def _interval(value: float, drawn: list[float]) -> Interval:
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Interval(min(value, float(low)), max(value, float(high)))


def _figures(probability: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]) -> dict[str, float]:
    alarm, violates = probability < 0.5, ~truth
    hits, alarms, violations = (alarm & violates).sum(), alarm.sum(), violates.sum()
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
    """P(a complying response scores above a violating one), ties half (Mann & Whitney)."""
    import scipy.stats

    positive = int(truth.sum())
    if not 0 < positive < len(truth):
        return float("nan")
    ranks = scipy.stats.rankdata(probability)
    excess = ranks[truth].sum() - positive * (positive + 1) / 2
    return float(excess / (positive * (len(truth) - positive)))


Verdicts = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.bool_]]
"""Bin, confidence, and whether it is right, of every verdict."""


def _verdicts(probability: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]) -> Verdicts:
    confidence = np.maximum(probability, 1 - probability)
    places = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    return places, confidence, (probability >= 0.5) == truth


def _ece(probability: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]) -> float:
    places, confidence, right = _verdicts(probability, truth)
    gaps = np.bincount(places, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(truth))


def tabulate_reliability(validation: CrossValidation, labels: Sequence[bool]) -> pd.DataFrame:
    """Accuracy of the calibrated verdicts by confidence: bin, confidence, accuracy, low, high, share, n."""
    columns = _verdicts(validation.calibrated, np.asarray(labels, dtype=bool))
    table = pd.DataFrame(dict(zip(("bin", "confidence", "right"), columns, strict=True)))
    rows = []
    for place, part in table.groupby("bin"):
        right, n = int(part["right"].sum()), len(part)
        low, high = wilson_interval(right, n)
        rows.append((place, part["confidence"].mean(), right / n, low, high, n / len(table), n))
    return pd.DataFrame(rows, columns=["bin", "confidence", "accuracy", "low", "high", "share", "n"])


def tabulate_folds(validation: CrossValidation, labels: Sequence[bool]) -> pd.DataFrame:
    """The calibrated figures fold by fold: `step` is the fold, from 1."""
    truth = np.asarray(labels, dtype=bool)
    rows = []
    for fold in range(validation.folds):
        inside = validation.fold == fold
        rows.append(
            {"step": fold + 1, "n": int(inside.sum())}
            | _figures(validation.calibrated[inside], truth[inside])
        )
    return pd.DataFrame(rows)
