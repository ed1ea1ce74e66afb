"""Compare items that share a cluster, such as answers to one prompt: they know less than single items."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy

from realignment.records import DataError
from realignment.statistics.paired import (
    RESAMPLES,
    Comparison,
    Interval,
    check_same_items,
    compare_means,
    compare_proportions,
    newcombe_interval,
    read_numbers,
    wilson_interval,
)


def compare_clustered(
    before: npt.ArrayLike, after: npt.ArrayLike, clusters: Sequence[Any], rng: np.random.Generator
) -> Comparison:
    """Compare a quantity on the same items where items share a cluster, such as answers to one prompt.

    The intervals are of a bootstrap that draws whole clusters with all their items (Davison and Hinkley
    1997, section 3.8), bias-corrected and accelerated: items of a cluster are alike, and count for less than
    as many clusters would. The p is of a test that turns the sign of the change of whole clusters at random,
    with one added to both counts (Phipson and Smyth 2010, arXiv:1603.05766). Where a yes/no quantity does not
    vary, a bootstrap has no width: there the intervals are Wilson's and Newcombe's, of as many items as there
    are clusters.

    Args:
        before: Values before, shape (n,): yes or no, or finite numbers.
        after: Values of the same items after, shape (n,).
        clusters: The cluster of each item, n of them, without nulls.
        rng: Source of the resamples; the same state gives the same intervals.

    Returns:
        Means over the items before and after, and their difference; NaN where the data cannot tell. Where no
        two items share a cluster, the intervals are those of `compare_means`.

    Raises:
        DataError: no items, different lengths, a value that is not a finite number, or a null cluster.
    """
    is_share = all(np.asarray(values).dtype == bool for values in (before, after))
    values_before = read_numbers(before, "before")
    values_after = read_numbers(after, "after")
    check_same_items(values_before, values_after)
    members = _cluster_indices(clusters, n=len(values_before))
    counts = np.bincount(members).astype(float)  # items per cluster, shape (clusters,)
    change = values_after - values_before
    # Sums per cluster: the mean of a resample is the sum of its clusters' sums over that of their counts.
    sums = [
        np.bincount(members, weights=values).astype(float) for values in (values_before, values_after, change)
    ]
    intervals = [_bootstrap_clusters(one, counts, rng) for one in sums]
    if is_share:
        substitutes = _unvarying_intervals(values_before, values_after, n_clusters=len(counts))
        intervals = [
            substitute if math.isnan(found.low) else found
            for found, substitute in zip(intervals, substitutes, strict=True)
        ]
    return Comparison(
        len(change),
        float(values_before.mean()), *intervals[0],
        float(values_after.mean()), *intervals[1],
        float(change.mean()), *intervals[2],
        _sign_flip_p(sums[2], rng), "cluster sign flip",
    )  # fmt: skip


def compare_items(
    before: npt.ArrayLike, after: npt.ArrayLike, clusters: Sequence[Any], rng: np.random.Generator
) -> Comparison:
    """Compare by clusters where two items share one, else as single items: shares and means alike.

    Args:
        before: Values before, shape (n,): yes or no, or finite numbers.
        after: Values of the same items after, shape (n,).
        clusters: The cluster of each item, n of them, such as its prompt.
        rng: Source of the resamples.

    Returns:
        From `compare_clustered`, `compare_proportions` (yes or no) or `compare_means`.

    Raises:
        DataError: See these.
    """
    if pd.Series(list(clusters), dtype=object).duplicated().any():
        return compare_clustered(before, after, clusters, rng)
    if all(np.asarray(values).dtype == bool for values in (before, after)):
        return compare_proportions(before, after)
    return compare_means(before, after, rng)


def _bootstrap_clusters(
    sums: npt.NDArray[np.float64], counts: npt.NDArray[np.float64], rng: np.random.Generator
) -> Interval:
    """Interval of Σ sums / Σ counts over drawn clusters, both of shape (clusters,)."""
    if len(sums) < 2 or np.ptp(sums / counts) <= 1e-12 * np.abs(sums / counts).max():
        return Interval(math.nan, math.nan)

    def mean(drawn: npt.NDArray[Any], sizes: npt.NDArray[Any], axis: int) -> npt.NDArray[Any]:
        return np.asarray(drawn.sum(axis=axis) / sizes.sum(axis=axis))

    result = scipy.stats.bootstrap(
        (sums, counts), mean, n_resamples=RESAMPLES, batch=1000, vectorized=True, paired=True,
        method="BCa", rng=rng,
    )  # fmt: skip
    return Interval(float(result.confidence_interval.low), float(result.confidence_interval.high))


def _unvarying_intervals(
    before: npt.NDArray[np.float64], after: npt.NDArray[np.float64], *, n_clusters: int
) -> tuple[Interval, Interval, Interval]:
    """Intervals of p_before, p_after and their difference as if each cluster were one item."""
    scale = n_clusters / len(before)
    both = float((before * after).sum()) * scale
    only_before = float((before * (1 - after)).sum()) * scale
    only_after = float(((1 - before) * after).sum()) * scale
    neither = max(0.0, n_clusters - both - only_before - only_after)  # rounding must not make it negative
    return (
        wilson_interval(min(both + only_before, n_clusters), n_clusters),
        wilson_interval(min(both + only_after, n_clusters), n_clusters),
        newcombe_interval(both, only_before, only_after, neither),
    )


def _sign_flip_p(changes: npt.NDArray[np.float64], rng: np.random.Generator) -> float:
    """Two-sided p of the total change under random signs of the clusters' changes, shape (clusters,)."""
    observed = abs(changes.sum())
    # In parts: all signs at once would take RESAMPLES × clusters numbers.
    as_far = 0
    for start in range(0, RESAMPLES, 1000):
        signs = rng.choice([-1.0, 1.0], size=(min(1000, RESAMPLES - start), len(changes)))
        # Sums of the same numbers in another order differ by rounding; equal ones must count as equal.
        as_far += int((np.abs(signs @ changes) >= observed * (1 - 1e-9)).sum())
    return (as_far + 1) / (RESAMPLES + 1)


def _cluster_indices(clusters: Sequence[Any], *, n: int) -> npt.NDArray[np.intp]:
    """Number the clusters from 0, in order of appearance, shape (n,)."""
    if len(clusters) != n:
        raise DataError(f"Found {len(clusters)} clusters for {n} items; expected one cluster per item.")
    indices, _ = pd.factorize(pd.Series(list(clusters), dtype=object))
    n_nulls = int((indices < 0).sum())
    if n_nulls:
        raise DataError(
            f"{n_nulls} of {n} items have no cluster; expected one each, such as the prompt. Give every item "
            "that stands alone a cluster of its own."
        )
    return indices
