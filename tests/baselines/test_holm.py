"""Holm's correction of p-values and of intervals say the same, and hold over many tables."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from realignment.baselines.holm import adjust_with_holm, correct_table, interval_levels


def naive_holm(p_values, alpha=0.05):
    """Reject the smallest p as long as it is at most α over the number that are left."""
    left = sorted(range(len(p_values)), key=lambda i: p_values[i])
    rejected = set()
    while left and p_values[left[0]] <= alpha / len(left):
        rejected.add(left.pop(0))
    return rejected


P_VALUES = st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=12)


@given(P_VALUES)
def test_adjusted_p_values_reject_what_the_steps_reject(p_values):
    adjusted = adjust_with_holm(np.array(p_values))
    # Away from the rounding of α/m itself.
    clear = np.abs(adjusted - 0.05) > 1e-12
    found = {i for i in np.flatnonzero(clear) if adjusted[i] <= 0.05}
    assert found == {i for i in naive_holm(p_values) if clear[i]}
    assert (adjusted >= p_values).all()
    assert (adjusted <= 1).all()


def test_adjusted_p_values_of_a_worked_example():
    # Holm 1979, by hand: 3 · 0.01, max(0.03, 2 · 0.02) = 0.04, max(0.04, 0.03) = 0.04.
    np.testing.assert_allclose(adjust_with_holm(np.array([0.03, 0.01, 0.02])), [0.04, 0.03, 0.04])


def table_of(differences, errors, freedom):
    t = np.abs(differences) / errors
    return pd.DataFrame(
        {
            "difference": differences,
            "error": errors,
            "freedom": float(freedom),
            "p_value": 2 * scipy.stats.t.sf(t, freedom),
        }
    )


@given(
    st.lists(st.floats(-6, 6).filter(lambda x: abs(x) > 1e-3), min_size=1, max_size=10), st.integers(2, 60)
)
def test_a_corrected_interval_excludes_zero_exactly_where_the_corrected_p_is_below_alpha(
    differences, freedom
):
    table = correct_table(table_of(np.array(differences), np.ones(len(differences)), freedom))
    excludes = (table["holm_low"] > 0) | (table["holm_high"] < 0)
    clear = (table["p_holm"] - 0.05).abs() > 1e-9
    assert (excludes == (table["p_holm"] < 0.05))[clear].all()


def test_levels_fall_with_the_rank_until_the_first_that_is_not_rejected():
    np.testing.assert_allclose(
        interval_levels(np.array([0.2, 0.001, 0.9, 0.01])), 1 - 0.05 / np.array([2, 4, 2, 3])
    )
    np.testing.assert_allclose(interval_levels(np.array([0.04, 0.001])), 1 - 0.05 / np.array([1, 2]))


def test_one_comparison_is_not_corrected():
    table = table_of(np.array([2.5]), np.array([1.0]), 7)
    corrected = correct_table(table)
    assert corrected["p_holm"].tolist() == table["p_value"].tolist()
    half = scipy.stats.t.ppf(0.975, 7)
    assert corrected[["holm_low", "holm_high"]].iloc[0].tolist() == pytest.approx([2.5 - half, 2.5 + half])


def test_a_comparison_that_cannot_be_tested_does_not_count():
    table = table_of(np.array([2.5, 0.3]), np.array([1.0, 1.0]), 7)
    gap = pd.DataFrame(
        {"difference": [0.0], "error": [math.nan], "freedom": [math.nan], "p_value": [math.nan]}
    )
    corrected = correct_table(pd.concat([gap, table], ignore_index=True))
    assert corrected["comparisons"].tolist() == [2, 2, 2]
    assert corrected.loc[0, ["p_holm", "holm_low", "holm_high"]].isna().all()
    np.testing.assert_allclose(corrected["p_holm"].iloc[1:], correct_table(table)["p_holm"])


def test_an_empty_table_stays_empty():
    empty = pd.DataFrame(
        {name: pd.Series(dtype=float) for name in ("difference", "error", "freedom", "p_value")}
    )
    assert len(correct_table(empty)) == 0


def test_a_difference_that_is_truly_zero_is_excluded_in_at_most_five_percent_of_tables():
    """Half of the ten differences are zero, half are large: Holm's steps must not let more through."""
    rng = np.random.default_rng(12)
    truth = np.repeat([0.0, 3.0], 5)
    draws, wrong, covered = 2000, 0, np.zeros(10)
    for _ in range(draws):
        errors = np.sqrt(rng.chisquare(8, 10) / 8)
        table = correct_table(table_of(truth + rng.normal(0, 1, 10), errors, 8))
        inside = (table["holm_low"] <= truth) & (truth <= table["holm_high"])
        wrong += not inside[:5].all()
        covered += inside
    assert wrong / draws <= 0.06
    assert (covered / draws >= 0.94).all()  # each interval by itself
