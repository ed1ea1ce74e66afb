"""Estimate means and differences where every seed of every method is measured on the same prompts.

Two things vary at once: another seed gives another model, other prompts give other answers. Both are in the
variance of a mean over S seeds and P prompts. With the effects a of the seed (variance A), c of the prompt
(C) and e of both together (E), it is A/S + C/P + E/(SP). The mean squares of the two-way table estimate

    V_seeds = A/S + E/(SP),   V_prompts = C/P + E/(SP),   V_both = E/(SP),

so that V = V_seeds + V_prompts − V_both, the two-way clustered variance of Cameron, Gelbach & Miller 2011
(Journal of Business & Economic Statistics 29:238-249), kept at or above V_seeds and V_prompts, since a
difference of three estimates may fall below them or below 0. Seeds of two methods are independent; prompts
are the same, so that the effect of a prompt on both methods cancels in a difference. The interval takes a t
quantile with Satterthwaite's degrees of freedom (1946, Biometrics Bulletin 2:110-114): three seeds know their
own variance badly.

Why not the percentiles of a bootstrap over seeds and prompts (Owen & Eckles 2012, arXiv:1106.2125;
Bouthillier et al. 2021, arXiv:2103.03098), which stand beside it (`resampling`): where seeds are almost all
of the variance, a nominal 95 % covers 68 % with two seeds, 80 % with three and 88 % with five. This interval
covers 94 to 99 % in all cases that `tests/baselines/test_coverage.py` draws.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy

from realignment.statistics import Interval, wilson_interval

Floats = npt.NDArray[np.float64]

LEVEL = 0.95
"""Of every interval that is not corrected for the number of comparisons."""


class Covers(StrEnum):
    """What an interval knows of. Only the first two are complete."""

    ALL = "seeds and prompts"
    UNTRAINED = "prompts (no training)"
    PART = "prompts, and seeds in part"
    PROMPTS = "prompts alone"
    SEEDS = "seeds alone"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Term:
    """One method of a mean or difference.

    Attributes:
        sign: 1 or -1.
        values: Of the items by every seed, shape (seeds, items); NaN: not scored.
        trained: Whether another seed would give another model.
    """

    sign: int
    values: Floats
    trained: bool = True


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean, or a difference of two, with what its interval is made of.

    Attributes:
        value: The estimate; NaN where no item is scored by all seeds.
        error: Its standard error; NaN where the data cannot tell.
        freedom: Degrees of freedom of the standard error.
        n: Items that every seed of every term has scored.
        clusters: Prompts that these belong to.
        covers: What the standard error knows of.
        share: Whether it is a share of items, or a difference of two.
    """

    value: float
    error: float
    freedom: float
    n: int
    clusters: int
    covers: Covers
    share: bool

    def interval(self, level: float = LEVEL) -> Interval:
        """Return value ± t·error at this level; NaN where the data cannot tell."""
        if math.isnan(self.error):
            return Interval(math.nan, math.nan)
        half = t_quantile(level, self.freedom) * self.error
        return Interval(self.value - half, self.value + half)

    @property
    def p_value(self) -> float:
        """Two-sided p of the t test that the value is 0; NaN where the data cannot tell."""
        if math.isnan(self.error):
            return math.nan
        return float(2 * scipy.stats.t.sf(abs(self.value) / self.error, self.freedom))


def t_quantile(level: float, freedom: float) -> float:
    """Return the standard errors on each side of a two-sided interval."""
    return float(scipy.stats.t.ppf((1 + level) / 2, freedom))


class Part(NamedTuple):
    """One mean square of the two-way table, divided so that it estimates a variance of the value."""

    variance: float
    freedom: int


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums of the used items by prompt.

    Attributes:
        terms: Shape (seeds, prompts) each.
        counts: Items of each prompt, shape (prompts,).
    """

    terms: tuple[Floats, ...]
    counts: Floats


def sum_clusters(terms: Sequence[Term], clusters: npt.NDArray[np.intp]) -> Sums:
    """Sum values by prompt over the items that every seed of every term has scored.

    Args:
        terms: With the same items.
        clusters: Number of each item's prompt, from 0, shape (items,).

    Returns:
        The sums; prompts without a used item have count 0.
    """
    stacked = np.concatenate([term.values for term in terms])  # (seeds of all terms, items)
    used = ~np.isnan(stacked).any(axis=0)
    size = int(clusters.max()) + 1 if len(clusters) else 0
    owners = clusters[used]
    sums = tuple(
        np.stack([np.bincount(owners, row[used], size).astype(float) for row in term.values])
        for term in terms
    )
    return Sums(sums, np.bincount(owners, minlength=size).astype(float))


def estimate(terms: Sequence[Term], clusters: npt.NDArray[np.intp], *, share: bool = False) -> Estimate:
    """Estimate Σ sign · (mean over seeds of the mean over items) and its standard error.

    An item that any seed of any term lacks is left out of all, so that all are compared on the same items.
    Items are weighed alike; those of one prompt may depend on each other as they like (the variance over
    prompts is that of a ratio of sums, Cochran 1977, section 6.3).

    A difference of shares gets one more prompt changed each way in its variance over prompts (Bonett & Price
    2012, Journal of Educational and Behavioral Statistics 37:479-488): without it, methods that differ on no
    prompt would have an interval of width 0.

    Args:
        terms: One for a mean, two with opposite signs for a difference.
        clusters: Number of each item's prompt, from 0, shape (items,).
        share: Whether the values are 0 or 1 (or shares themselves), so that the mean lies within 0..1.

    Returns:
        The estimate.
    """
    sums = sum_clusters(terms, clusters)
    kept = sums.counts > 0
    n, n_clusters = int(sums.counts.sum()), int(kept.sum())
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, 0, Covers.NOTHING, share)
    tables = [table[:, kept] for table in sums.terms]
    counts = sums.counts[kept]
    signs = np.array([term.sign for term in terms])
    value = float(signs @ [table.sum(axis=1).mean() / n for table in tables])
    profile = sum(sign * table.mean(axis=0) for sign, table in zip(signs, tables, strict=True))
    changes = 2.0 if share and len(terms) == 2 else 0.0
    prompts = _prompt_part(np.asarray(profile) - value * counts, n, added=changes)
    seeds = [_seed_part(table.sum(axis=1) / n) for table in tables if len(table) > 1]
    both = [_joint_part(table, counts) for table in tables if len(table) > 1 and n_clusters > 1]
    size = max(float(np.abs(table).max()) for table in tables)
    error, freedom = _combine(prompts, seeds, both, negligible=(1e-12 * size) ** 2)
    covers = _describe(terms, n_clusters) if not math.isnan(error) else Covers.NOTHING
    return Estimate(value, error, freedom, n, n_clusters, covers, share)


def _prompt_part(residuals: Floats, n: int, *, added: float) -> Part | None:
    """Variance over prompts, from Σ over the items of a prompt of (value − mean), shape (prompts,)."""
    size = len(residuals)
    if size < 2:
        return None
    squares = float(((residuals * size / n) ** 2).sum())
    return Part((squares + added) / (size * (size - 1)), size - 1)


def _seed_part(means: Floats) -> Part:
    """Variance over the seeds of one method, from the mean of each, shape (seeds,)."""
    return Part(float(means.var(ddof=1)) / len(means), len(means) - 1)


def _joint_part(sums: Floats, counts: Floats) -> Part:
    """What the other two both contain: the variance of seeds and prompts together, from (seeds, prompts)."""
    seeds, size = sums.shape
    n = counts.sum()
    residuals = sums - sums.sum(axis=1, keepdims=True) / n * counts  # of each seed's own mean
    residuals = (residuals - residuals.mean(axis=0)) * size / n
    freedom = (seeds - 1) * (size - 1)
    return Part(float((residuals**2).sum()) / (freedom * seeds * size), freedom)


def _combine(
    prompts: Part | None, seeds: Sequence[Part], both: Sequence[Part], *, negligible: float
) -> tuple[float, float]:
    """Standard error and degrees of freedom; NaN where nothing varies, or nothing could."""
    added = [*([] if prompts is None else [prompts]), *seeds]
    over_prompts = 0.0 if prompts is None else prompts.variance
    over_seeds = sum(part.variance for part in seeds)
    variance = max(over_prompts + over_seeds - sum(part.variance for part in both), over_prompts, over_seeds)
    if variance <= negligible:
        return math.nan, math.nan
    freedom = variance**2 / sum(part.variance**2 / part.freedom for part in (*added, *both))
    # With a part taken off, the formula may give less than the part that is known worst.
    return math.sqrt(variance), max(freedom, float(min(part.freedom for part in added)))


def _describe(terms: Sequence[Term], n_clusters: int) -> Covers:
    known = [len(term.values) > 1 for term in terms if term.trained]
    if n_clusters < 2:
        return Covers.SEEDS
    if not known:
        return Covers.UNTRAINED
    if all(known):
        return Covers.ALL
    return Covers.PART if any(known) else Covers.PROMPTS


def mean_interval(estimate: Estimate) -> Interval:
    """Compute the 95 % interval of a mean; that of a share lies within 0..1 and has a width also at 0 and 1.

    For a share, Wilson's with the t quantile and the number of independent items that would have this
    standard error, p(1 − p)/V (Korn & Graubard 1998, Survey Methodology 24:193-201; Franco et al. 2019,
    Journal of Survey Statistics and Methodology 7:334-364). Where all values are equal, each prompt counts as
    one item.

    Args:
        estimate: Of one term.

    Returns:
        The interval; NaN where the data cannot tell.
    """
    if not estimate.share or estimate.clusters < 2:
        return estimate.interval()
    share = estimate.value
    if math.isnan(estimate.error) or share in (0.0, 1.0):
        size = float(estimate.clusters)
        freedom = size - 1
    else:
        size = share * (1 - share) / estimate.error**2
        freedom = estimate.freedom
    return wilson_interval(share * size, size, quantile=t_quantile(LEVEL, freedom))


def number_clusters(clusters: Sequence[Any]) -> npt.NDArray[np.intp]:
    """Number prompts from 0, in order of appearance, shape (items,)."""
    places: dict[Any, int] = {}
    return np.array([places.setdefault(cluster, len(places)) for cluster in clusters], dtype=np.intp)
