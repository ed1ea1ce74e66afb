"""Draw a stratified sample with known inclusion probabilities, and estimate figures of all pairs from it."""

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realignment.records import DataError, Disposition
from realignment.statistics import Interval

DRAWS = 4000
"""Completed populations that an interval is read from: some 100 of them lie in each 2.5 % tail."""

Totals = npt.NDArray[np.float64]
Metric = Callable[[Totals], npt.NDArray[np.float64]]
"""Population totals of shape (…, S, K) → one number per leading index; NaN where it is not defined."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure of the whole population, from n audited units; both ends NaN where the sample cannot tell."""

    value: float
    low: float
    high: float
    n: int

    @property
    def interval(self) -> Interval:
        """The 95 % interval."""
        return Interval(self.low, self.high)


def draw_sample(triaged: pd.DataFrame, *, size: int, seed: int) -> pd.DataFrame:
    """Draw equally many pairs of every disposition, each disposition a simple random sample of its own.

    A pair's place in the draw is a number made of the seed and its id (permanent random numbers, Ohlsson
    1995), so that another draw from changed splits shares as many pairs with this one as it can, and people's
    verdicts stay useful.

    Args:
        triaged: Pairs with `disposition`; those that may be drawn have `eligible` true, if there is such a
            column.
        size: Pairs to draw; all of a disposition where it has fewer than its share.
        seed: Seed of the draw.

    Returns:
        The drawn rows in random order, with `stratum`, `stratum_size` (pairs of that disposition) and
        `inclusion_probability`.

    Raises:
        DataError: There is no pair to draw.
    """
    eligible = triaged[triaged["eligible"]] if "eligible" in triaged else triaged
    numbers = eligible["pair_id"].map(lambda pair_id: _permanent_number(seed, pair_id))
    # The first of a stratum in the order of random numbers are a simple random sample of it.
    strata = eligible.assign(_place=numbers).sort_values("_place").groupby("disposition", sort=False)
    sizes = triaged["disposition"].value_counts()
    quota = allocate(strata.size().to_dict(), size)
    parts = [rows.head(quota[stratum]) for stratum, rows in strata]
    if not sum(map(len, parts)):
        raise DataError(
            f"No pair can be audited: of {len(triaged)} pairs {len(eligible)} have a known truth, and the "
            "audit draws from these. Label some (columns chosen_complies, rejected_complies), or let people "
            "judge a sample (`--pipelines review_export`) and set `audit.truth: people`."
        )
    drawn = pd.concat(parts).sort_values("_place").drop(columns=["_place", "eligible"], errors="ignore")
    stratum_sizes = drawn["disposition"].map(sizes)
    probability = drawn["disposition"].map(quota) / stratum_sizes
    return drawn.assign(
        stratum=drawn["disposition"], stratum_size=stratum_sizes, inclusion_probability=probability
    ).reset_index(drop=True)


def allocate(sizes: Mapping[Hashable, int], size: int) -> dict[Hashable, int]:
    """Divide a sample over strata in equal shares; what a stratum cannot fill is shared among the others.

    Args:
        sizes: Stratum → units that it has.
        size: Units to draw.

    Returns:
        Stratum → units to draw from it.
    """
    quota: dict[Hashable, int] = {}
    # Smallest stratum first, so that what it lacks is known before the larger ones get their shares.
    by_size = sorted(sizes.items(), key=lambda item: (item[1], str(item[0])))
    for place, (stratum, available) in enumerate(by_size):
        share = (size - sum(quota.values())) // (len(sizes) - place)
        quota[stratum] = min(available, share)
    return quota


def _permanent_number(seed: int, pair_id: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{pair_id}".encode()).digest()[:8], "big")


@dataclass(frozen=True, slots=True)
class Tally:
    """Audited units by stratum and cell, and the size of each stratum in the population.

    S strata, K cells (such as: right, wrong). In a stratum the units are a simple random sample.

    Attributes:
        sizes: Units of the population, shape (S,).
        counts: Audited units, shape (S, K); every row has at least one.
        prior: Pseudo-counts of the cells, shape (S, K): half a unit for a cell and half for the rest
            (Jeffreys). Without them, no error in the sample would mean certainly no error in the stratum.
    """

    sizes: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    prior: npt.NDArray[np.float64]

    @property
    def n(self) -> int:
        """Number of audited units."""
        return int(self.counts.sum())

    def totals(self) -> Totals:
        """Estimate the units of the population in each cell by expansion (Horvitz–Thompson), shape (S, K)."""
        return np.asarray(self.sizes[:, None] * self.counts / self.counts.sum(axis=1, keepdims=True))

    def completions(self, rng: np.random.Generator, draws: int = DRAWS) -> Totals:
        """Draw completed populations: the audited units, and the others from a Pólya urn.

        The unseen units of a stratum are Dirichlet-multinomial given the seen ones (Ghosh & Meeden 1997,
        Bayesian Methods for Finite Population Sampling): the finite population correction comes with it, and
        a stratum that was audited in full has no uncertainty left.

        Args:
            rng: Source of the draws.
            draws: Number of populations.

        Returns:
            Units in each cell, shape (draws, S, K).
        """
        shape = (draws, *self.counts.shape)
        # A Dirichlet draw is gammas over their sum; the floor keeps 0/0 out where every gamma underflows.
        gammas = np.maximum(rng.standard_gamma(self.counts + self.prior, size=shape), 1e-300)
        shares = gammas / gammas.sum(axis=-1, keepdims=True)
        # Multinomial of the unseen units, (S,) of them, with shares (draws, S, K).
        unseen = rng.multinomial(self.sizes - self.counts.sum(axis=1), shares)
        return np.asarray(self.counts + unseen, dtype=np.float64)


def tally(
    population: pd.DataFrame,
    audited: pd.DataFrame,
    by: Sequence[str],
    cell: str,
    cells: Mapping[Any, Callable[[tuple[Hashable, ...]], float]],
) -> tuple[list[tuple[Hashable, ...]], Tally]:
    """Count audited units by stratum and cell, without the strata that have no audited unit.

    Args:
        population: Every unit, with the columns `by`.
        audited: The units whose truth is known, with the columns `by` and `cell`.
        by: Columns that make a stratum: the design's stratum, and any other column known of every unit.
        cell: Column of the cell.
        cells: Cell → its pseudo-count in a stratum.

    Returns:
        The strata's keys, in the tally's order, and the tally.
    """
    keys = sorted(set(audited[list(by)].itertuples(index=False, name=None)), key=str)
    row_of_key = {key: row for row, key in enumerate(keys)}
    column_of_cell = {name: column for column, name in enumerate(cells)}
    counts = np.zeros((len(keys), len(cells)), dtype=np.int64)
    for *key, name in audited[[*by, cell]].itertuples(index=False, name=None):
        counts[row_of_key[tuple(key)], column_of_cell[name]] += 1
    prior = np.empty(counts.shape)
    for column, pseudo_count in enumerate(cells.values()):
        prior[:, column] = [pseudo_count(key) for key in keys]
    # A groupby over one column is indexed by its values, not by tuples of one.
    population_sizes = population.groupby(list(by), dropna=False).size()
    sizes = [int(population_sizes.loc[key if len(by) > 1 else key[0]]) for key in keys]
    return keys, Tally(np.array(sizes, dtype=np.int64), counts, prior)


def estimate(counts: Tally, metric: Metric, rng: np.random.Generator, n: int | None = None) -> Estimate:
    """Estimate a figure of the population with a 95 % interval that respects the sampling.

    The value is design-weighted; the interval holds the central 95 % of the completed populations, and the
    value.

    Args:
        counts: Audited units.
        metric: The figure, of totals.
        rng: Source of the completed populations.
        n: Audited units that the figure rests on; None: all of them.

    Returns:
        The estimate; NaN where the figure is not defined.
    """
    n = counts.n if n is None else n
    value = float(metric(counts.totals()))
    if np.isnan(value):
        return Estimate(value, np.nan, np.nan, n)
    values = metric(counts.completions(rng))  # shape (draws,)
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Estimate(value, min(value, float(low)), max(value, float(high)), n)


def ratio(part: npt.NDArray[np.float64], whole: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Divide part by whole, element by element; NaN where the whole is zero."""
    unknown = np.full_like(whole, np.nan, dtype=float)
    return np.asarray(np.divide(part, whole, out=unknown, where=whole > 0))


ROUTED = (Disposition.INVERT, Disposition.PUNISH, Disposition.RETAIN)
"""What is trained on; also every disposition that a pair can have in truth."""
