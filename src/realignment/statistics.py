"""Compute intervals and paired tests: figures with their uncertainty, differences with a paired test."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy

from realignment.records import DataError

Z = 1.959963984540054
"""Standard normal quantile of a two-sided 95 % interval, the only level that this project reports."""

RESAMPLES = 9999
"""Bootstrap resamples (SciPy's default): about 250 of them lie in each 2.5 % tail."""


class Interval(NamedTuple):
    """A 95 % confidence interval; both ends are NaN where the data cannot give one."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """One quantity before and after on the same n items. Every `low`, `high` pair is a 95 % interval.

    `difference` is after − before. NaN means that the data cannot tell, never that there is no effect.
    """

    n: int
    before: float
    before_low: float
    before_high: float
    after: float
    after_low: float
    after_high: float
    difference: float
    difference_low: float
    difference_high: float
    p_value: float
    test: str


def wilson_interval(successes: float, n: float, *, quantile: float = Z) -> Interval:
    """Compute the score interval of a proportion, which has a width at 0 and at n, unlike the usual interval.

    Wilson 1927; recommended as method 3 by Newcombe 1998, Statistics in Medicine 17:857-872.

    Args:
        successes: Items that have the property, 0 to n; a fraction for weighted items.
        n: Items, > 0.
        quantile: Standard errors on each side; another than the default is another level than 95 %.

    Returns:
        The interval of the proportion, within 0..1.

    Raises:
        DataError: n is not positive, or successes lie outside 0..n.

    Example:
        >>> low, high = wilson_interval(8, 72)
        >>> f"{low:.3f} to {high:.3f}"
        '0.057 to 0.204'
    """
    if not 0 <= successes <= n or n == 0:
        raise DataError(
            f"Found {successes} successes of {n} items; expected 0 to n successes of at least 1 item."
        )
    share = successes / n
    centre = share + quantile**2 / (2 * n)
    half = quantile * math.sqrt(share * (1 - share) / n + quantile**2 / (4 * n**2))
    scale = 1 + quantile**2 / n
    # At 0 and at n the formula gives the bound itself, up to rounding: keep the interval around the estimate.
    low = max(0.0, min(share, (centre - half) / scale))
    high = min(1.0, max(share, (centre + half) / scale))
    return Interval(low, high)


def newcombe_interval(both: float, only_before: float, only_after: float, neither: float) -> Interval:
    """Compute the interval of p_after − p_before for paired proportions, from the cells of the 2 × 2 table.

    Squares and adds the two Wilson intervals, less their correlation φ, whose numerator is corrected for
    continuity when positive: method 10 of Newcombe 1998, Statistics in Medicine 17:2635-2650. Tango's score
    interval is as good a choice but has to be found iteratively; this one is a formula, and stays within ±1.
    """
    n = both + only_before + only_after + neither
    before = (both + only_before) / n
    after = (both + only_after) / n
    before_low, before_high = wilson_interval(both + only_before, n)
    after_low, after_high = wilson_interval(both + only_after, n)
    phi = _corrected_correlation(both, only_before, only_after, neither)

    def distance(one: float, other: float) -> float:
        """Length of the difference of two steps whose correlation is φ (law of cosines)."""
        return math.sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2))

    # The difference is lowest where p_after is at its lower and p_before at its upper end, and vice versa.
    difference = (only_after - only_before) / n
    low = difference - distance(after - after_low, before_high - before)
    high = difference + distance(after_high - after, before - before_low)
    return Interval(low, high)


def _corrected_correlation(both: float, only_before: float, only_after: float, neither: float) -> float:
    """φ of the table with Newcombe's continuity correction; 0 where a margin is empty (his convention)."""
    n = both + only_before + only_after + neither
    margins = (both + only_before) * (only_after + neither) * (both + only_after) * (only_before + neither)
    if margins == 0:
        return 0.0
    product = float(both * neither - only_before * only_after)
    if product > 0:
        product = max(0.0, product - n / 2)
    return product / math.sqrt(margins)


def mcnemar_p(only_before: int, only_after: int) -> float:
    """Compute the exact two-sided p of McNemar's test: changed items against a fair coin; 1 without any.

    Example:
        >>> mcnemar_p(only_before=1, only_after=5)
        0.21875
        >>> mcnemar_p(only_before=0, only_after=0)  # no item changed
        1.0
    """
    discordant = only_before + only_after
    if discordant == 0:
        return 1.0
    return float(scipy.stats.binomtest(only_after, discordant, 0.5).pvalue)


def compare_proportions(before: npt.ArrayLike, after: npt.ArrayLike) -> Comparison:
    """Compare a yes/no quantity on the same items: Wilson and Newcombe intervals, exact McNemar p.

    Args:
        before: Whether each item has the property before, shape (n,), bool without nulls.
        after: The same items after, shape (n,).

    Returns:
        Shares before and after, and their difference.

    Raises:
        DataError: no items, different lengths, or values that are not yes or no.
    """
    flags_before = _flags(before, "before")
    flags_after = _flags(after, "after")
    _check_same_items(flags_before, flags_after)
    # The 2 × 2 table of the pairs.
    n = len(flags_before)
    both = int((flags_before & flags_after).sum())
    only_before = int(flags_before.sum()) - both
    only_after = int(flags_after.sum()) - both
    neither = n - both - only_before - only_after
    return Comparison(
        n,
        (both + only_before) / n, *wilson_interval(both + only_before, n),
        (both + only_after) / n, *wilson_interval(both + only_after, n),
        (only_after - only_before) / n, *newcombe_interval(both, only_before, only_after, neither),
        mcnemar_p(only_before, only_after), "McNemar exact",
    )  # fmt: skip


def compare_means(before: npt.ArrayLike, after: npt.ArrayLike, rng: np.random.Generator) -> Comparison:
    """Compare a measured quantity on the same items: bootstrap intervals, Wilcoxon signed-rank p.

    Bootstrap: bias-corrected and accelerated (Efron 1987), over items. NaN where the data cannot tell:
    the interval of values that do not vary, the p of differences that are all zero, both for a single item.

    Args:
        before: Values before, shape (n,), finite.
        after: Values of the same items after, shape (n,).
        rng: Source of the resamples; the same state gives the same intervals.

    Returns:
        Means before and after, and their difference.

    Raises:
        DataError: no items, different lengths, or values that are not finite numbers.
    """
    values_before = _numbers(before, "before")
    values_after = _numbers(after, "after")
    _check_same_items(values_before, values_after)
    change = values_after - values_before
    # The three bootstraps draw from `rng` in this order: another order gives other intervals.
    return Comparison(
        len(change),
        float(values_before.mean()), *_bootstrap_mean(values_before, rng),
        float(values_after.mean()), *_bootstrap_mean(values_after, rng),
        float(change.mean()), *_bootstrap_mean(change, rng),
        wilcoxon_p(change), "Wilcoxon signed-rank",
    )  # fmt: skip


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
    values_before = _numbers(before, "before")
    values_after = _numbers(after, "after")
    _check_same_items(values_before, values_after)
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


def cohen_kappa(first: Sequence[Any], second: Sequence[Any]) -> float:
    """Compute the agreement of two judges beyond chance (Cohen 1960), over the items that both judged.

    Returns:
        κ; NaN where no item is left, or where both give every item the same verdict: 0/0 is not 1.

    Raises:
        DataError: the judges saw different numbers of items.

    Example:
        >>> round(cohen_kappa([True, True, False, False], [True, False, False, False]), 2)
        0.5
    """
    from sklearn.metrics import cohen_kappa_score  # slow to import, and rarely needed

    if len(first) != len(second):
        raise DataError(
            f"Found {len(first)} and {len(second)} verdicts; expected one of each judge per item."
        )
    verdicts = pd.DataFrame({"first": list(first), "second": list(second)}).dropna().astype(str)
    if verdicts.empty or pd.unique(verdicts.to_numpy().ravel()).size == 1:
        return math.nan
    return float(cohen_kappa_score(verdicts["first"], verdicts["second"]))


def _bootstrap_mean(values: npt.NDArray[np.float64], rng: np.random.Generator) -> Interval:
    # The acceleration of BCa is 0/0 for values that do not vary, up to rounding.
    if len(values) < 2 or np.ptp(values) <= 1e-12 * np.abs(values).max():
        return Interval(math.nan, math.nan)
    result = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, batch=1000, vectorized=True, method="BCa", rng=rng
    )
    return Interval(float(result.confidence_interval.low), float(result.confidence_interval.high))


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


def wilcoxon_p(change: npt.NDArray[np.float64]) -> float:
    """Compute the two-sided p of Wilcoxon's signed-rank test; NaN for one item, and where none changed.

    Args:
        change: Differences of the same items, shape (n,).

    Returns:
        The p-value.
    """
    if len(change) < 2 or not change.any():
        return math.nan
    return float(scipy.stats.wilcoxon(change).pvalue)


def _check_same_items(before: npt.NDArray[Any], after: npt.NDArray[Any]) -> None:
    if len(before) != len(after) or len(before) == 0:
        raise DataError(
            f"Found {len(before)} values before and {len(after)} after; expected the same items twice, "
            "at least one. Check that the evaluation data has items of this group."
        )


def _flags(values: npt.ArrayLike, name: str) -> npt.NDArray[np.bool_]:
    flags = pd.Series(np.atleast_1d(values), dtype=None if np.size(values) else bool)
    if not flags.isin([True, False]).all():
        raise DataError(
            f"`{name}` holds values that are not yes or no; expected booleans. Leave unjudged items out."
        )
    return flags.to_numpy(dtype=bool)


def _numbers(values: npt.ArrayLike, name: str) -> npt.NDArray[np.float64]:
    numbers = np.atleast_1d(np.asarray(values, dtype=np.float64))
    n_invalid = int((~np.isfinite(numbers)).sum())
    if n_invalid:
        raise DataError(
            f"`{name}` holds {n_invalid} of {len(numbers)} values that are not finite; leave such items out."
        )
    return numbers
