"""A stratified sample with known inclusion probabilities, and what it says of all pairs."""

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
    """A figure of the whole population, from n audited units. Both ends NaN where the sample cannot tell."""

    value: float
    low: float
    high: float
    n: int

    @property
    def interval(self) -> Interval:
        """95 %."""
        return Interval(self.low, self.high)


def draw_sample(triaged: pd.DataFrame, *, size: int, seed: int) -> pd.DataFrame:
    """Equally many pairs of every disposition, each disposition a simple random sample of its own.

    A pair's place in the draw is a number made of the seed and its id (permanent random numbers, Ohlsson
    1995), so that another draw from changed splits shares as many pairs with this one as it can: people's
    verdicts stay of use.

    Args:
        triaged: Pairs with `disposition`; those that may be drawn have `eligible` true, if there is such a
            column.
        size: Pairs to draw; all of a disposition where it has fewer than its share.
        seed: Of the draw.

    Returns:
        The drawn rows in random order, with `stratum`, `stratum_size` (pairs of that disposition) and
        `inclusion_probability`.

    Raises:
        DataError: There is no pair to draw.
    """
    eligible = triaged[triaged["eligible"]] if "eligible" in triaged else triaged
    places = eligible["pair_id"].map(lambda pair_id: _permanent_number(seed, pair_id))
    strata = eligible.assign(_place=places).sort_values("_place").groupby("disposition", sort=False)
    sizes = triaged["disposition"].value_counts()
    quota = allocate(strata.size().to_dict(), size)
    parts = [rows.head(quota[stratum]) for stratum, rows in strata]
    if not sum(map(len, parts)):
        raise DataError(
            f"No pair can be audited: of {len(triaged)} pairs {len(eligible)} have a known truth, and the "
            "audit "
            "draws from these. Label some (columns chosen_complies, rejected_complies), or let people judge "
            "a sample (`--pipelines review_export`) and set `audit.truth: people`."
        )
    drawn = pd.concat(parts).sort_values("_place").drop(columns=["_place", "eligible"], errors="ignore")
    stratum_sizes = drawn["disposition"].map(sizes)
    probability = drawn["disposition"].map(quota) / stratum_sizes
    return drawn.assign(
        stratum=drawn["disposition"], stratum_size=stratum_sizes, inclusion_probability=probability
    ).reset_index(drop=True)


def allocate(sizes: Mapping[Hashable, int], size: int) -> dict[Hashable, int]:
    """Equal shares; what a stratum cannot fill is shared among the others, smallest stratum first."""
    quota: dict[Hashable, int] = {}
    for place, (stratum, available) in enumerate(
        sorted(sizes.items(), key=lambda item: (item[1], str(item[0])))
    ):
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
        prior: Pseudo-counts of the cells, shape (S, K), as many as half a unit for a cell and half for the
            rest (Jeffreys): without, a stratum with no error in the sample would have none for certain.
    """

    sizes: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    prior: npt.NDArray[np.float64]

    @property
    def n(self) -> int:
        """Audited units."""
        return int(self.counts.sum())

    def totals(self) -> Totals:
        """Units of the population by their expansion (Horvitz–Thompson), shape (S, K)."""
        return np.asarray(self.sizes[:, None] * self.counts / self.counts.sum(axis=1, keepdims=True))

    def completions(self, rng: np.random.Generator, draws: int = DRAWS) -> Totals:
        """Completed populations, shape (draws, S, K): what was seen, and the unseen drawn from a Pólya urn.

        The unseen units of a stratum are Dirichlet-multinomial given the seen ones (Ghosh & Meeden 1997,
        Bayesian Methods for Finite Population Sampling): the finite population correction comes with it, and
        a stratum that was audited in full has no uncertainty left.
        """
        shape = (draws, *self.counts.shape)
        weights = np.maximum(rng.standard_gamma(self.counts + self.prior, size=shape), 1e-300)
        shares = weights / weights.sum(axis=-1, keepdims=True)
        unseen = rng.multinomial(self.sizes - self.counts.sum(axis=1), shares)
        return np.asarray(self.counts + unseen, dtype=np.float64)


def tally(
    population: pd.DataFrame,
    audited: pd.DataFrame,
    by: Sequence[str],
    cell: str,
    cells: Mapping[Any, Callable[[tuple[Hashable, ...]], float]],
) -> tuple[list[tuple[Hashable, ...]], Tally]:
    """Count audited units by stratum and cell. Strata without an audited unit are left out: nothing is known.

    Args:
        population: Every unit, with the columns `by`.
        audited: Those whose truth is known, with the columns `by` and `cell`.
        by: What makes a stratum; the design's stratum must be among it, what is known of every unit may be.
        cell: Column of the cell.
        cells: Cell → its pseudo-count in a stratum.

    Returns:
        The strata's keys, in the tally's order, and the tally.
    """
    keys = sorted(set(audited[list(by)].itertuples(index=False, name=None)), key=str)
    place, column = {key: i for i, key in enumerate(keys)}, {name: i for i, name in enumerate(cells)}
    counts = np.zeros((len(keys), len(cells)), dtype=np.int64)
    for *key, found in audited[[*by, cell]].itertuples(index=False, name=None):
        counts[place[tuple(key)], column[found]] += 1
    sizes = population.groupby(list(by), dropna=False).size()
    found_sizes = [int(sizes.loc[key if len(by) > 1 else key[0]]) for key in keys]
    prior = np.array([[pseudo(key) for pseudo in cells.values()] for key in keys]).reshape(counts.shape)
    return keys, Tally(np.array(found_sizes, dtype=np.int64), counts, prior)


def estimate(counts: Tally, metric: Metric, rng: np.random.Generator, n: int | None = None) -> Estimate:
    """A figure of the population with a 95 % interval that respects the sampling.

    The value is design-weighted; the interval holds the central 95 % of the completed populations, and the
    value.
    """
    value = float(metric(counts.totals()))
    if np.isnan(value):
        return Estimate(value, np.nan, np.nan, counts.n if n is None else n)
    values = metric(counts.completions(rng))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Estimate(value, min(value, float(low)), max(value, float(high)), counts.n if n is None else n)


def ratio(part: npt.NDArray[np.float64], whole: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Part / whole, NaN where there is no whole."""
    unknown = np.full_like(whole, np.nan, dtype=float)
    return np.asarray(np.divide(part, whole, out=unknown, where=whole > 0))


ROUTED = (Disposition.INVERT, Disposition.PUNISH, Disposition.RETAIN)
"""What is trained on; also every disposition that a pair can have in truth."""
