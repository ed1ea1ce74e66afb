"""Correct the comparisons of a table for their number, p-values and intervals alike."""

import numpy as np
import pandas as pd

from realignment.baselines.crossed import LEVEL, Floats, t_quantile

ALPHA = 1 - LEVEL


def adjust_with_holm(p_values: Floats) -> Floats:
    """Compute Holm's adjusted p-values: each the lowest family-wise error rate at which it is rejected.

    p̃ of rank k of m = max over ranks j ≤ k of min(1, (m − j + 1) · p_j): Holm 1979, Scandinavian Journal of
    Statistics 6:65-70. It holds however the tests depend on each other.

    Args:
        p_values: Of all comparisons of the table, shape (m,), without NaN.

    Returns:
        Shape (m,).
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p_values[order]))
    return adjusted


def interval_levels(p_values: Floats) -> Floats:
    """Compute the level of each interval at which it excludes 0 exactly where Holm's test rejects.

    1 − α/(m − k + 1) for rank k, as long as Holm rejects; all others have the level of the first that he does
    not reject (Serlin 1993, Journal of Experimental Education 61:350-360). Each covers its difference at 95 %
    or more, and that one of the differences which are truly 0 is excluded happens in at most 5 % of tables.
    That *all* intervals of a table cover theirs is not assured: Bonferroni's, α/m for all, would do that, and
    would contradict Holm's test.

    Args:
        p_values: Of all comparisons of the table, shape (m,), without NaN.

    Returns:
        Shape (m,), each from 0.95 to 1.
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.arange(len(p_values), 0, -1)
    kept = np.flatnonzero(p_values[order] > ALPHA / steps)
    if len(kept):
        steps[kept[0] :] = steps[kept[0]]
    levels = np.empty(len(p_values))
    levels[order] = 1 - ALPHA / steps
    return levels


def correct_table(differences: pd.DataFrame) -> pd.DataFrame:
    """Add Holm's correction over all rows of a table of differences.

    Args:
        differences: Columns `difference`, `error`, `freedom` and `p_value`; a row whose p is NaN is no test.

    Returns:
        The table with `comparisons` (tests of the table), `p_holm`, `holm_low` and `holm_high`.
    """
    tested = differences["p_value"].notna().to_numpy()
    p_values = differences["p_value"].to_numpy(dtype=float)[tested]
    quantiles = np.array([
        t_quantile(level, freedom)
        for level, freedom in zip(interval_levels(p_values), differences["freedom"][tested], strict=True)
    ])  # fmt: skip
    half = _spread(quantiles, tested) * differences["error"].to_numpy(dtype=float)
    value = differences["difference"].to_numpy(dtype=float)
    return differences.assign(
        comparisons=int(tested.sum()),
        p_holm=_spread(adjust_with_holm(p_values), tested),
        holm_low=value - half,
        holm_high=value + half,
    )


def _spread(values: Floats, tested: np.ndarray) -> Floats:
    """Values of the tested rows at their places, NaN elsewhere."""
    placed = np.full(len(tested), np.nan)
    placed[tested] = values
    return placed
