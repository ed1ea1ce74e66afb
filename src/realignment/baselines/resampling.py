"""Resample seeds and prompts together: the bootstrap that stands beside the intervals of `crossed`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from realignment.baselines.crossed import Floats, Sums
from realignment.statistics import Interval


@dataclass(frozen=True, slots=True)
class Resamples:
    """How often each resample has drawn each prompt and each seed.

    Attributes:
        prompts: Shape (resamples, prompts); one draw for all methods, which answer the same prompts.
        seeds: Arm → shape (resamples, seeds); each method's are drawn by themselves.
    """

    prompts: npt.NDArray[np.int64]
    seeds: Mapping[str, npt.NDArray[np.int64]]


def draw_resamples(
    n_prompts: int, n_seeds: Mapping[str, int], *, resamples: int, rng: np.random.Generator
) -> Resamples:
    """Draw with replacement, as many prompts and seeds as there are (Owen & Eckles 2012, arXiv:1106.2125).

    Args:
        n_prompts: Prompts of the table.
        n_seeds: Arm → its seeds.
        resamples: Their number.
        rng: Source of the draws.

    Returns:
        The draws as counts.
    """
    return Resamples(
        _draw_counts(n_prompts, resamples, rng),
        {arm: _draw_counts(n, resamples, rng) for arm, n in n_seeds.items()},
    )


def _draw_counts(n: int, resamples: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples)


def resample(
    sums: Sums, signs: Sequence[int], prompts: npt.NDArray[np.int64], seeds: Sequence[npt.NDArray[np.int64]]
) -> Floats:
    """Compute the mean or difference in every resample.

    Args:
        sums: Of its terms, by prompt.
        signs: Of its terms.
        prompts: Counts of the drawn prompts, shape (resamples, prompts).
        seeds: Counts of the drawn seeds of each term, shape (resamples, seeds) each.

    Returns:
        Shape (resamples,); NaN where none of the drawn prompts has a scored item.
    """
    weights = prompts.astype(float)
    total = np.zeros(len(weights))
    for sign, table, drawn in zip(signs, sums.terms, seeds, strict=True):
        by_seed = weights @ table.T  # (resamples, seeds)
        total += sign * (by_seed * drawn).sum(axis=1) / drawn.shape[1]
    counts = weights @ sums.counts
    values = np.full(len(total), np.nan)
    np.divide(total, counts, out=values, where=counts > 0)
    return values


def percentile_interval(values: Floats) -> Interval:
    """Return the 2.5 and 97.5 % quantiles of the resamples; NaN where they do not vary.

    Args:
        values: From `resample`.

    Returns:
        The interval.
    """
    values = values[~np.isnan(values)]
    if not len(values) or np.ptp(values) <= 1e-12 * np.abs(values).max():
        return Interval(math.nan, math.nan)
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(float(low), float(high))
