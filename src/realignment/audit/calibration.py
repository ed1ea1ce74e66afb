"""Measure whether a confidence of 0.9 is right nine times of ten, and how often a preference is wrong."""

from collections.abc import Hashable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realignment.audit.sampling import Estimate, Tally, Totals, estimate, ratio, tally
from realignment.records import Disposition

BINS = 10
"""Number of bins, of equal width over the confidences that a yes/no verdict can have: 0.5 to 1."""

MAX_ERROR_RATE = 0.4
"""Upper limit of ε: the robust loss weights a pair by 1/(1 − 2ε), 5 at 0.4 and without bound at 0.5."""

MIN_EACH = 5
"""Audited errors, and as many right preferences, from which on a slope over the confidence is fitted."""


def bin_of(confidence: pd.Series) -> pd.Series:
    """Return the bin of each confidence, 0 to `BINS` − 1; confidences below 0.5 are in the first."""
    scaled = np.floor((confidence.to_numpy(float) - 0.5) * 2 * BINS)
    return pd.Series(np.clip(scaled, 0, BINS - 1).astype(int), index=confidence.index)


def measure_calibration(
    population: pd.DataFrame, audited: pd.DataFrame, rng: np.random.Generator
) -> tuple[dict[str, Estimate], pd.DataFrame]:
    """Measure calibration error, overconfidence and Brier score, and the bins of the reliability plot.

    ECE = Σ_b (share of bin b) · |accuracy_b − mean confidence_b| (Naeini et al. 2015). With few verdicts in a
    bin it is too large on average; overconfidence, mean confidence − accuracy, is not.

    Args:
        population: Every scored verdict: `stratum`, `response`, `confidence`.
        audited: The verdicts of known truth, with `right` besides.
        rng: Source of the intervals.

    Returns:
        The figures ece, overconfidence and brier, and per bin: bin, confidence (mean), accuracy, low, high,
        share, n.
    """
    population = population.assign(bin=bin_of(population["confidence"]))
    bins = sorted(population["bin"].unique())
    # A cell is a bin and whether the verdict is right: (bin 0, right), (bin 0, wrong), (bin 1, right) …
    cell_of_verdict = list(zip(bin_of(audited["confidence"]), audited["right"].astype(bool), strict=True))
    audited = audited.assign(cell=pd.Series(cell_of_verdict, index=audited.index, dtype=object))
    by = ["stratum", "response"]
    shares = population.groupby(by)["bin"].value_counts(normalize=True).to_dict()
    cells = {}
    for number in bins:
        cells[number, True] = cells[number, False] = partial(_prior, shares, number)
    _, counts = tally(population, audited, by, "cell", cells)
    # Confidences are known of every verdict, so their means need no estimate, shape (bins,) each.
    confidence = population.groupby("bin")["confidence"].mean().reindex(bins).to_numpy(float)
    squares = population.assign(hit=(1 - population["confidence"]) ** 2, miss=population["confidence"] ** 2)
    brier = squares.groupby("bin")[["hit", "miss"]].mean().reindex(bins).to_numpy(float)
    figures = {
        "ece": estimate(counts, partial(_ece, confidence), rng),
        "overconfidence": estimate(counts, partial(_overconfidence, confidence), rng),
        "brier": estimate(counts, partial(_brier, brier), rng),
    }
    return figures, _reliability(counts, bins, confidence, rng)


def _prior(shares: dict[Any, float], number: int, key: tuple[Hashable, ...]) -> float:
    """Half a right and half a wrong verdict per stratum, over its bins as its verdicts are."""
    return 0.5 * shares.get((*key, number), 0.0)


def _by_bin(totals: Totals) -> tuple[Totals, Totals]:
    """Right and all verdicts of each bin, shape (…, bins), from totals of shape (…, S, 2 · bins)."""
    summed = totals.sum(axis=-2)
    right = summed[..., 0::2]
    wrong = summed[..., 1::2]
    return right, right + wrong


def _ece(confidence: npt.NDArray[np.float64], totals: Totals) -> Totals:
    right, all_ = _by_bin(totals)
    gaps = np.abs(ratio(right, all_) - confidence)
    return np.asarray(ratio(np.nansum(gaps * all_, axis=-1), all_.sum(axis=-1)))


def _overconfidence(confidence: npt.NDArray[np.float64], totals: Totals) -> Totals:
    right, all_ = _by_bin(totals)
    whole = all_.sum(axis=-1)
    mean_confidence = ratio((all_ * confidence).sum(axis=-1), whole)
    accuracy = ratio(right.sum(axis=-1), whole)
    return mean_confidence - accuracy


def _brier(squares: npt.NDArray[np.float64], totals: Totals) -> Totals:
    right, all_ = _by_bin(totals)
    # Mean squared loss of a right and of a wrong verdict in each bin: squares[:, 0] and squares[:, 1].
    loss = right * squares[:, 0] + (all_ - right) * squares[:, 1]
    return ratio(loss.sum(axis=-1), all_.sum(axis=-1))


def _reliability(
    counts: Tally, bins: list[int], confidence: npt.NDArray[np.float64], rng: np.random.Generator
) -> pd.DataFrame:
    rows = []
    for place, number in enumerate(bins):
        n = int(counts.counts[:, 2 * place : 2 * place + 2].sum())
        if n:
            accuracy = estimate(counts, partial(_accuracy_of, place), rng, n)
            _, all_ = _by_bin(counts.totals())
            share = float(all_[place] / all_.sum())
            rows.append((number, confidence[place], accuracy.value, accuracy.low, accuracy.high, share, n))
    return pd.DataFrame(rows, columns=["bin", "confidence", "accuracy", "low", "high", "share", "n"])


def _accuracy_of(place: int, totals: Totals) -> Totals:
    right, all_ = _by_bin(totals)
    return ratio(right[..., place], all_[..., place])


def preference_errors(audited: pd.DataFrame) -> pd.Series:
    """Return how wrong each pair's stated preference is: 0 right, 1 the wrong way round, ½ no preference.

    A pair in which both responses comply, or both violate, has no preference to state: half of a flip, since
    either order is as right. INVERT pairs prefer rejected; RETAIN pairs whose rejected response violates
    prefer chosen; the others state none (null).

    Args:
        audited: `disposition`, `rejected_verdict`, `chosen_truth`, `rejected_truth`.

    Returns:
        0, ½ or 1 per pair; null where the pair states no preference or its truth is unknown.
    """
    # 1: rejected is better in truth, −1: chosen is, 0: neither.
    truth = audited["rejected_truth"].astype("Float64") - audited["chosen_truth"].astype("Float64")
    prefers_rejected = audited["disposition"] == Disposition.INVERT
    rejected_violates = audited["rejected_verdict"].eq(False).fillna(False)
    prefers_chosen = (audited["disposition"] == Disposition.RETAIN) & rejected_violates
    direction = pd.Series(pd.NA, index=audited.index, dtype="Float64")
    direction = direction.mask(prefers_rejected, 1.0).mask(prefers_chosen, -1.0)
    return ((1 - direction * truth) / 2).astype("Float64")


def fit_error_rates(audited: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Fit ε of a stated preference, P(wrong way round) + ½ P(no preference), by disposition and confidence.

    The rate is smoothed by Jeffreys' half error and half success. Where the confidences differ and the audit
    has enough errors, a logistic slope over the log-odds of the confidence is fitted (Platt 1999): a
    confident verdict then has a smaller ε than a doubtful one.

    Args:
        audited: The columns of `preference_errors`, and `confidence`.

    Returns:
        Disposition → rate, n, and (where fitted) intercept and slope.
    """
    preference_error = preference_errors(audited)
    fitted: dict[str, dict[str, float]] = {}
    for disposition in (Disposition.INVERT, Disposition.RETAIN):
        rows = (audited["disposition"] == disposition) & preference_error.notna()
        errors = preference_error[rows].to_numpy(float)
        if not len(errors):
            continue
        rate = {"n": len(errors), "rate": (errors.sum() + 0.5) / (len(errors) + 1)}
        odds = _log_odds(audited.loc[rows, "confidence"])
        if np.ptp(odds) > 1e-3 and min(errors.sum(), (1 - errors).sum()) >= MIN_EACH:
            rate |= _platt(odds, errors)
        fitted[str(disposition)] = {key: float(value) for key, value in rate.items()}
    return fitted


def _log_odds(confidence: pd.Series) -> npt.NDArray[np.float64]:
    clipped = np.clip(confidence.to_numpy(float), 0.01, 0.99)
    return np.asarray(np.log(clipped / (1 - clipped)))


def _platt(odds: npt.NDArray[np.float64], errors: npt.NDArray[np.float64]) -> dict[str, float]:
    from sklearn.linear_model import LogisticRegression  # slow to import

    # An error of ½ is half an error and half a success: every pair stands twice, weighted by both parts.
    features = np.concatenate([odds, odds])[:, None]  # shape (2n, 1)
    labels = np.repeat([1, 0], len(odds))
    weights = np.concatenate([errors, 1 - errors])
    model = LogisticRegression().fit(features, labels, sample_weight=weights)
    return {"intercept": model.intercept_[0], "slope": model.coef_[0, 0]}


def error_rates(triaged: pd.DataFrame, fitted: dict[str, dict[str, float]]) -> pd.Series:
    """Return ε of every pair.

    Args:
        triaged: `disposition`, `confidence`.
        fitted: From `fit_error_rates`.

    Returns:
        ε per pair, at most `MAX_ERROR_RATE`; null where the pair's disposition was not audited.
    """
    rates = pd.Series(np.nan, index=triaged.index, dtype=float)
    for disposition, fit in fitted.items():
        rows = triaged["disposition"] == disposition
        if "slope" in fit:
            scores = fit["intercept"] + fit["slope"] * _log_odds(triaged.loc[rows, "confidence"])
            rates[rows] = 1 / (1 + np.exp(-scores))
        else:
            rates[rows] = fit["rate"]
    return rates.clip(upper=MAX_ERROR_RATE)
