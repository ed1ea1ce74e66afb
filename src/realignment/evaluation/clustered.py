"""Compare shares over answers that come in clusters: several answers to one request are not independent."""

import math
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from realignment.records import DataError
from realignment.statistics import RESAMPLES, Comparison, Interval, wilson_interval

QUANTILES = (0.025, 0.975)


def compare_clusters(
    before: npt.ArrayLike, after: npt.ArrayLike, clusters: Sequence[Hashable], rng: np.random.Generator
) -> Comparison:
    """Compare means of the same answers before and after, with whole clusters as the unit of chance.

    Cluster bootstrap with percentiles (Field and Welsh 2007, JRSS B 69:369): clusters are drawn with
    replacement, each with all of its answers, and before and after of an answer stay together. The p value is
    that of a two-sided permutation test which exchanges before and after of whole clusters.

    Args:
        before: Values in 0..1 (flags or scores) of n answers before, shape (n,).
        after: Those of the same answers after, shape (n,).
        clusters: The cluster of each answer, n keys.
        rng: Source of the resamples.

    Returns:
        The means and their difference. With a single cluster nothing is known of others: intervals are NaN.
        Where all values are 0, or all 1, no resample varies: the interval is Wilson's over clusters, which is
        wide enough however alike the answers of a cluster are. That of differences all equal is NaN.

    Raises:
        DataError: no answers, or different lengths.
    """
    sides = [np.asarray(before, float), np.asarray(after, float)]
    codes, keys = pd.factorize(np.asarray(clusters, dtype=object))
    if not len(codes) or {len(side) for side in sides} != {len(codes)}:
        raise DataError(
            f"Found {len(sides[0])} answers before, {len(sides[1])} after and {len(codes)} keys of clusters; "
            "expected the same number of each, at least one."
        )
    values = np.stack(sides)  # (2, n)
    number = len(keys)
    sizes = np.bincount(codes, minlength=number)  # (K,)
    sums = np.stack([np.bincount(codes, weights=side, minlength=number) for side in values])  # (2, K)
    # How often each cluster is drawn, shape (R, K).
    counts = rng.multinomial(number, np.full(number, 1 / number), size=RESAMPLES)
    means = (counts @ sums.T) / (counts @ sizes)[:, None]  # (R, 2)
    share_before, share_after = values.mean(axis=1).tolist()
    change = means[:, 1] - means[:, 0]
    flips = rng.choice([-1.0, 1.0], size=(RESAMPLES, number))
    return Comparison(
        values.shape[1],
        share_before,
        *_share_interval(means[:, 0], values[0], number),
        share_after,
        *_share_interval(means[:, 1], values[1], number),
        share_after - share_before,
        *_percentiles(change),
        _permutation_p(sums[1] - sums[0], flips) if number > 1 else math.nan,
        "cluster permutation",
    )


def _share_interval(
    drawn: npt.NDArray[np.float64], values: npt.NDArray[np.float64], clusters: int
) -> Interval:
    if clusters > 1 and len(set(values.tolist())) == 1 and values[0] in (0.0, 1.0):
        return wilson_interval(int(values[0]) * clusters, clusters)
    return _percentiles(drawn)


def _percentiles(drawn: npt.NDArray[np.float64]) -> Interval:
    # Equal up to rounding: nothing varies, which also holds for a single cluster.
    if np.ptp(drawn) <= 1e-12:
        return Interval(math.nan, math.nan)
    low, high = np.quantile(drawn, QUANTILES)
    return Interval(float(low), float(high))


def _permutation_p(changes: npt.NDArray[np.float64], flips: npt.NDArray[np.float64]) -> float:
    """Two-sided p of the sum of the clusters' changes, shape (K,), under random signs, shape (R, K)."""
    extreme = np.abs(flips @ changes) >= abs(changes.sum()) - 1e-12
    return float((1 + extreme.sum()) / (1 + len(flips)))
