"""Tabulate what every method measures, and how far two methods are apart, with 95 % intervals."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from realignment.baselines.crossed import (
    Estimate,
    Floats,
    Sums,
    Term,
    estimate,
    mean_interval,
    number_clusters,
    sum_clusters,
)
from realignment.baselines.resampling import Resamples, draw_resamples, percentile_interval, resample
from realignment.baselines.tables import DONE, label_arms
from realignment.records import DataError
from realignment.reports.formats import SHARES

RESAMPLES = 20_000
"""Of the bootstrap: 500 lie in each 2.5 % tail, which moves its ends by about 3 % of the width."""

FIGURE_KEYS = ("set", "metric", "group", "judge")

MEAN_COLUMNS = (
    *FIGURE_KEYS, "arm", "seeds", "n", "clusters", "value", "low", "high", "bootstrap_low", "bootstrap_high",
    "covers",
)  # fmt: skip

DIFFERENCE_COLUMNS = (
    *FIGURE_KEYS, "first", "second", "first_seeds", "second_seeds", "n", "clusters", "difference", "low",
    "high", "bootstrap_low", "bootstrap_high", "error", "freedom", "p_value", "covers",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Design:
    """One figure of a set, measured by every seed of every arm on the same items.

    Attributes:
        values: Arm → its values, shape (seeds, items); NaN: not scored, or not measured.
        clusters: Number of each item's prompt, shape (items,).
        untrained: Arms that another seed would not change.
        share: Whether the metric is a share of items.
    """

    values: Mapping[str, Floats]
    clusters: npt.NDArray[np.intp]
    untrained: frozenset[str]
    share: bool

    def term(self, arm: str, sign: int = 1) -> Term:
        """Return an arm as a term of a mean or difference."""
        return Term(sign, self.values[arm], trained=arm not in self.untrained)

    def draw(self, resamples: int, rng: np.random.Generator) -> Resamples:
        """Draw prompts and seeds for a bootstrap of all comparisons of this figure."""
        n_prompts = int(self.clusters.max()) + 1
        n_seeds = {arm: len(values) for arm, values in self.values.items()}
        return draw_resamples(n_prompts, n_seeds, resamples=resamples, rng=rng)


def arrange(items: pd.DataFrame, untrained: Iterable[str] = ()) -> Design:
    """Arrange the items of one figure of a set by arm, seed and item.

    Args:
        items: Rows of one set, metric, group and judge, at least one; columns `tables.ITEM_COLUMNS`.
        untrained: Arms without training (`find_untrained`).

    Returns:
        The design; arms and items in order of appearance.

    Raises:
        DataError: An item belongs to two prompts.
    """
    owners = items[["item", "cluster"]].drop_duplicates()
    twice = owners[owners.duplicated("item", keep=False)]
    if len(twice):
        raise DataError(
            f"Item {twice.iloc[0]['item']!r} belongs to the clusters {twice['cluster'].head(2).tolist()}; "
            "expected one. Items that differ between cells need ids of their own."
        )
    arms = label_arms(items)
    wide = items.assign(arm=arms).pivot(index=["arm", "seed"], columns="item", values="value")
    wide = wide[owners["item"]]
    share = str(items["metric"].iloc[0]).partition(":")[0] in SHARES
    values = {str(arm): wide.loc[arm].to_numpy(dtype=float) for arm in arms.unique()}
    return Design(values, number_clusters(owners["cluster"].tolist()), frozenset(untrained), share)


def find_untrained(cells: pd.DataFrame) -> frozenset[str]:
    """Return the arms whose finished cells took no step of training."""
    done = cells[cells["status"] == DONE]
    steps = done.groupby(label_arms(done))["steps"].max()
    return frozenset(map(str, steps[steps == 0].index))


def split_figures(items: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """Yield every figure (set, metric, group, judge) with its items, in order of appearance."""
    for key, rows in items.groupby(list(FIGURE_KEYS), sort=False):
        yield dict(zip(FIGURE_KEYS, map(str, key), strict=True)), rows


def tabulate_means(
    items: pd.DataFrame,
    *,
    untrained: Iterable[str] = (),
    resamples: int = RESAMPLES,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Tabulate the mean of every arm over seeds and items, for every set, metric, group and judge.

    Args:
        items: Columns `tables.ITEM_COLUMNS`.
        untrained: Arms without training.
        resamples: Of the bootstrap.
        rng: Source of the resamples.

    Returns:
        Columns `MEAN_COLUMNS`: `n` items that all `seeds` have scored; `low` and `high` from
        `crossed.mean_interval`, `bootstrap_…` from the percentiles of `resampling`, `covers` what both know
        of.
    """
    rows = []
    for key, part in split_figures(items):
        design = arrange(part, untrained)
        drawn = design.draw(resamples, rng)
        for arm, values in design.values.items():
            terms = [design.term(arm)]
            found = estimate(terms, design.clusters, share=design.share)
            low, high = mean_interval(found)
            rows.append(
                key
                | {"arm": arm, "seeds": len(values), "value": found.value, "low": low, "high": high}
                | _describe(found, sum_clusters(terms, design.clusters), [(arm, 1)], drawn)
            )
    return pd.DataFrame(rows, columns=list(MEAN_COLUMNS))


def tabulate_differences(
    items: pd.DataFrame,
    pairs: Iterable[tuple[str, str]],
    *,
    untrained: Iterable[str] = (),
    resamples: int = RESAMPLES,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Tabulate first − second for pairs of arms, for every set, metric, group and judge that has both.

    Args:
        items: Columns `tables.ITEM_COLUMNS`.
        pairs: Names of arms, as of `tables.label_arms`.
        untrained: Arms without training.
        resamples: Of the bootstrap.
        rng: Source of the resamples.

    Returns:
        Columns `DIFFERENCE_COLUMNS`, not corrected for their number (`holm.correct_table`). `n` items that
        all seeds of both have scored; `error` and `freedom` are of the t interval `low` to `high` and of its
        `p_value`.
    """
    asked = list(pairs)
    rows = []
    for key, part in split_figures(items):
        design = arrange(part, untrained)
        drawn = design.draw(resamples, rng)
        for first, second in asked:
            if first not in design.values or second not in design.values:
                continue
            terms = [design.term(first), design.term(second, sign=-1)]
            found = estimate(terms, design.clusters, share=design.share)
            low, high = found.interval()
            rows.append(
                key
                | {"first": first, "second": second, "difference": found.value, "low": low, "high": high}
                | {"first_seeds": len(terms[0].values), "second_seeds": len(terms[1].values)}
                | {"error": found.error, "freedom": found.freedom, "p_value": found.p_value}
                | _describe(found, sum_clusters(terms, design.clusters), [(first, 1), (second, -1)], drawn)
            )
    return pd.DataFrame(rows, columns=list(DIFFERENCE_COLUMNS))


def _describe(
    found: Estimate, sums: Sums, signed: Sequence[tuple[str, int]], drawn: Resamples
) -> dict[str, object]:
    """What means and differences have in common."""
    values = resample(
        sums, [sign for _, sign in signed], drawn.prompts, [drawn.seeds[arm] for arm, _ in signed]
    )
    low, high = percentile_interval(values)
    return {
        "n": found.n,
        "clusters": found.clusters,
        "bootstrap_low": low,
        "bootstrap_high": high,
        "covers": str(found.covers),
    }
