"""Intervals and paired tests: every figure with its uncertainty, every difference with a paired test."""

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
"""Standard normal quantile of a two-sided 95 % interval: the one level that this project reports."""

RESAMPLES = 9999
"""Bootstrap resamples (SciPy's default): some 250 of them then lie in each 2.5 % tail."""


class Interval(NamedTuple):
    """A 95 % confidence interval; both ends NaN where the data cannot give one."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """One quantity before and after on the same n items. Every `low`, `high` pair is a 95 % interval.

    `difference` is after − before. NaN says that the data cannot tell, never that nothing was found.
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


def wilson_interval(successes: int, n: int) -> Interval:
    """Score interval of a proportion; sensible at 0 and at n, where the usual interval has no width.

    Wilson 1927; recommended as method 3 by Newcombe 1998, Statistics in Medicine 17:857-872.

    Raises:
        DataError: n is not positive, or successes lie outside 0..n.
    """
    if not 0 <= successes <= n or n == 0:
        raise DataError(
            f"Found {successes} successes of {n} items; expected 0 to n successes of at least 1 item."
        )
    share = successes / n
    centre = share + Z**2 / (2 * n)
    half = Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    scale = 1 + Z**2 / n
    # At 0 and at n the formula gives the bound itself, up to rounding: keep the interval around the estimate.
    return Interval(
        max(0.0, min(share, (centre - half) / scale)), min(1.0, max(share, (centre + half) / scale))
    )


def newcombe_interval(both: int, only_before: int, only_after: int, neither: int) -> Interval:
    """Interval of p_after − p_before for paired proportions, from the four cells of the 2 × 2 table.

    Squares and adds the two Wilson intervals, less their correlation φ, whose numerator is corrected for
    continuity when positive: method 10 of Newcombe 1998, Statistics in Medicine 17:2635-2650. Tango's score
    interval is as good a choice but has to be found iteratively; this one is a formula, and stays within ±1.
    """
    n = both + only_before + only_after + neither
    before, after = (both + only_before) / n, (both + only_after) / n
    before_low, before_high = wilson_interval(both + only_before, n)
    after_low, after_high = wilson_interval(both + only_after, n)
    phi = _corrected_correlation(both, only_before, only_after, neither)

    def distance(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2))

    difference = (only_after - only_before) / n
    return Interval(
        difference - distance(after - after_low, before_high - before),
        difference + distance(after_high - after, before - before_low),
    )


def _corrected_correlation(both: int, only_before: int, only_after: int, neither: int) -> float:
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
    """Exact two-sided p of McNemar's test: the items that changed against a fair coin; 1 where none did."""
    discordant = only_before + only_after
    return float(scipy.stats.binomtest(only_after, discordant, 0.5).pvalue) if discordant else 1.0


def compare_proportions(before: npt.ArrayLike, after: npt.ArrayLike) -> Comparison:
    """A yes/no quantity before and after on the same items: Wilson and Newcombe intervals, exact McNemar p.

    Args:
        before: Whether each item has the property before, shape (n,), bool without nulls.
        after: The same items after, shape (n,).

    Raises:
        DataError: no items, different lengths, or values that are not yes or no.
    """
    was, now = _flags(before, "before"), _flags(after, "after")
    _check_same_items(was, now)
    n, k_before, k_after = len(was), int(was.sum()), int(now.sum())
    both = int((was & now).sum())
    only_before, only_after = k_before - both, k_after - both
    difference = newcombe_interval(both, only_before, only_after, n - both - only_before - only_after)
    return Comparison(
        n,
        k_before / n,
        *wilson_interval(k_before, n),
        k_after / n,
        *wilson_interval(k_after, n),
        (only_after - only_before) / n,
        *difference,
        mcnemar_p(only_before, only_after),
        "McNemar exact",
    )


def compare_means(before: npt.ArrayLike, after: npt.ArrayLike, rng: np.random.Generator) -> Comparison:
    """A measured quantity before and after on the same items: bootstrap intervals, Wilcoxon signed-rank p.

    Bootstrap: bias-corrected and accelerated (Efron 1987), over items. NaN where there is nothing to go by:
    the interval of values that do not vary, the p of differences that are all zero, both for a single item.

    Args:
        before: Values before, shape (n,), finite.
        after: Values of the same items after, shape (n,).
        rng: Source of the resamples; the same state gives the same intervals.

    Raises:
        DataError: no items, different lengths, or values that are not finite numbers.
    """
    was, now = _numbers(before, "before"), _numbers(after, "after")
    _check_same_items(was, now)
    change = now - was
    return Comparison(
        len(was),
        float(was.mean()),
        *_bootstrap_mean(was, rng),
        float(now.mean()),
        *_bootstrap_mean(now, rng),
        float(change.mean()),
        *_bootstrap_mean(change, rng),
        _wilcoxon_p(change),
        "Wilcoxon signed-rank",
    )


def cohen_kappa(first: Sequence[Any], second: Sequence[Any]) -> float:
    """Agreement of two judges beyond chance (Cohen 1960), over the items that both have judged.

    NaN where no item is left, or where both judges say one and the same thing of everything: chance alone
    then explains full agreement, and 0/0 is not 1.

    Raises:
        DataError: the judges saw different numbers of items.
    """
    from sklearn.metrics import cohen_kappa_score  # slow to import, and rarely needed

    if len(first) != len(second):
        raise DataError(
            f"Found {len(first)} and {len(second)} verdicts; expected one of each judge per item."
        )
    judged = pd.DataFrame({"first": list(first), "second": list(second)}).dropna().astype(str)
    if judged.empty or pd.unique(judged.to_numpy().ravel()).size == 1:
        return math.nan
    return float(cohen_kappa_score(judged["first"], judged["second"]))


def _bootstrap_mean(values: npt.NDArray[np.float64], rng: np.random.Generator) -> Interval:
    if len(values) < 2 or np.ptp(values) <= 1e-12 * np.abs(values).max():
        return Interval(math.nan, math.nan)
    result = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, batch=1000, vectorized=True, method="BCa", rng=rng
    )
    return Interval(float(result.confidence_interval.low), float(result.confidence_interval.high))


def _wilcoxon_p(change: npt.NDArray[np.float64]) -> float:
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
    if bad := int((~np.isfinite(numbers)).sum()):
        raise DataError(
            f"`{name}` holds {bad} of {len(numbers)} values that are not finite; leave such items out."
        )
    return numbers
