"""Compare single items before and after: shares and means with intervals, differences with a paired test."""

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
    check_same_items(flags_before, flags_after)
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
    values_before = read_numbers(before, "before")
    values_after = read_numbers(after, "after")
    check_same_items(values_before, values_after)
    change = values_after - values_before
    # The three bootstraps draw from `rng` in this order: another order gives other intervals.
    return Comparison(
        len(change),
        float(values_before.mean()), *_bootstrap_mean(values_before, rng),
        float(values_after.mean()), *_bootstrap_mean(values_after, rng),
        float(change.mean()), *_bootstrap_mean(change, rng),
        wilcoxon_p(change), "Wilcoxon signed-rank",
    )  # fmt: skip


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


def check_same_items(before: npt.NDArray[Any], after: npt.NDArray[Any]) -> None:
    """Refuse values of different numbers of items, or of none.

    Args:
        before: Values before, shape (n,).
        after: Values after, shape (n,).

    Raises:
        DataError: There are no items, or the lengths differ.
    """
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


def read_numbers(values: npt.ArrayLike, name: str) -> npt.NDArray[np.float64]:
    """Return values as finite numbers.

    Args:
        values: Numbers, or yes and no, shape (n,).
        name: What they are, for the message.

    Returns:
        Floats, shape (n,).

    Raises:
        DataError: A value is not finite.
    """
    numbers = np.atleast_1d(np.asarray(values, dtype=np.float64))
    n_invalid = int((~np.isfinite(numbers)).sum())
    if n_invalid:
        raise DataError(
            f"`{name}` holds {n_invalid} of {len(numbers)} values that are not finite; leave such items out."
        )
    return numbers
