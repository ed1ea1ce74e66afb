"""Intervals and tests against published worked examples, slow twins, and what must hold for any data."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st

from realignment.records import DataError
from realignment.statistics import (
    cohen_kappa,
    compare_means,
    compare_proportions,
    mcnemar_p,
    newcombe_interval,
    wilson_interval,
)

flags = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_newcombes_printed_examples(successes, n, low, high):
    """Table I of Newcombe 1998, Statistics in Medicine 17:857-872, method 3."""
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


@settings(deadline=None)
@given(n=st.integers(1, 500), data=st.data())
def test_wilson_matches_scipy(n, data):
    successes = data.draw(st.integers(0, n))
    expected = scipy.stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson_interval(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(
    ("both", "only_before", "only_after", "neither", "low", "high", "digits"),
    [
        pytest.param(14, 0, 5, 22, 0.011, 0.226, 3, id="Altman et al. 2000, p. 52"),
        pytest.param(1, 7, 1, 12, -0.507, -0.026, 3, id="Fagerland et al. 2014"),
        pytest.param(59, 16, 6, 80, -0.1186, -0.0046, 4, id="Fagerland et al. 2017, ch. 8"),
    ],
)
def test_newcombe_gives_the_printed_examples(both, only_before, only_after, neither, low, high, digits):
    assert newcombe_interval(both, only_before, only_after, neither) == pytest.approx(
        (low, high), abs=0.5 * 10**-digits
    )


@pytest.mark.parametrize(
    ("cells", "most"),
    [
        pytest.param((0.2, 0.05, 0.45, 0.3), 0.98, id="many items change"),
        pytest.param((0.05, 0.02, 0.03, 0.9), 1.0, id="few items change: cautious, as counts are coarse"),
    ],
)
def test_newcombe_covers_the_truth_in_at_least_about_95_of_100_simulated_evaluations(cells, most):
    draws = np.random.default_rng(1).multinomial(50, cells, size=2000).tolist()
    intervals = np.array([newcombe_interval(*draw) for draw in draws])
    truth = cells[2] - cells[1]
    assert 0.93 <= np.mean((intervals[:, 0] <= truth) & (truth <= intervals[:, 1])) <= most


@pytest.mark.parametrize(("only_before", "only_after", "p"), [(7, 1, 0.0703), (16, 6, 0.0525), (0, 0, 1.0)])
def test_mcnemar_gives_the_printed_examples(only_before, only_after, p):
    assert mcnemar_p(only_before, only_after) == pytest.approx(p, abs=5e-5)


def test_mcnemar_matches_counting_every_coin_sequence():
    sequences = list(product([0, 1], repeat=9))
    for observed in range(10):
        as_far = sum(abs(sum(s) - 4.5) >= abs(observed - 4.5) for s in sequences)
        assert mcnemar_p(9 - observed, observed) == pytest.approx(as_far / len(sequences))


@settings(deadline=None)
@given(flags)
def test_swapping_before_and_after_negates_the_difference_of_proportions(items):
    before, after = map(np.array, zip(*items, strict=True))
    forth, back = compare_proportions(before, after), compare_proportions(after, before)
    assert (back.difference, back.difference_low, back.difference_high) == pytest.approx(
        (-forth.difference, -forth.difference_high, -forth.difference_low)
    )
    assert back.p_value == pytest.approx(forth.p_value)
    assert (back.before_low, back.after_high) == (forth.after_low, forth.before_high)


@settings(deadline=None)
@given(flags)
def test_intervals_of_proportions_contain_their_estimate_and_stay_in_range(items):
    before, after = map(np.array, zip(*items, strict=True))
    found = compare_proportions(before, after)
    assert 0 <= found.before_low <= found.before <= found.before_high <= 1
    assert 0 <= found.after_low <= found.after <= found.after_high <= 1
    assert -1 <= found.difference_low <= found.difference <= found.difference_high <= 1
    assert found.difference == pytest.approx(found.after - found.before)
    assert found.n == len(items)
    assert found.test == "McNemar exact"


def test_a_model_that_did_not_change_has_no_difference_and_p_one():
    same = np.array([True, False, True, True])
    found = compare_proportions(same, same)
    assert (found.difference, found.p_value) == (0, 1)
    assert found.difference_low < 0 < found.difference_high


def test_all_right_after_all_wrong_is_significant_without_a_division_by_zero():
    found = compare_proportions(np.zeros(30, dtype=bool), np.ones(30, dtype=bool))
    assert found.difference == found.difference_high == 1
    assert found.difference_low > 0.8
    assert found.p_value == pytest.approx(2 * 0.5**30)


def test_pandas_booleans_count_as_booleans():
    before = pd.Series([True, False, False], dtype="boolean")
    assert compare_proportions(before, pd.Series([True, True, False], dtype=object)).after == pytest.approx(
        2 / 3
    )


@pytest.mark.parametrize(
    "bad", [[True, None], [0.5, 1.0], ["yes", "no"], pd.array([True, pd.NA], dtype="boolean")]
)
def test_values_that_are_not_yes_or_no_are_refused_by_name(bad):
    with pytest.raises(DataError, match="`after` holds values that are not yes or no"):
        compare_proportions([True, False], bad)


@pytest.mark.parametrize(("before", "after"), [([], []), ([True], [True, False])])
def test_no_items_or_unequal_items_are_a_clear_error(before, after):
    with pytest.raises(DataError, match="expected the same items twice, at least one"):
        compare_proportions(before, after)
    with pytest.raises(DataError, match="expected the same items twice, at least one"):
        compare_means([float(b) for b in before], [float(a) for a in after], rng())


def test_a_proportion_of_nothing_is_an_error():
    with pytest.raises(DataError, match="Found 0 successes of 0 items"):
        wilson_interval(0, 0)


def test_bootstrap_agrees_with_the_t_interval_on_normal_data():
    before = rng().normal(10, 2, size=400)
    after = before + rng().normal(0.5, 1, size=400)
    found = compare_means(before, after, rng())
    expected = scipy.stats.ttest_1samp(after - before, 0).confidence_interval()
    assert (found.difference_low, found.difference_high) == pytest.approx(
        (expected.low, expected.high), abs=0.02
    )
    assert found.p_value < 1e-6


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=5, max_size=30))
def test_swapping_before_and_after_negates_the_difference_of_means(items):
    before, after = map(np.array, zip(*items, strict=True))
    forth, back = compare_means(before, after, rng()), compare_means(after, before, rng())
    assert (back.difference, back.difference_low, back.difference_high) == pytest.approx(
        (-forth.difference, -forth.difference_high, -forth.difference_low), abs=1e-6, nan_ok=True
    )
    assert (
        math.isnan(forth.difference_low) or forth.difference_low <= forth.difference <= forth.difference_high
    )


def test_the_same_generator_state_gives_the_same_intervals():
    before, after = np.arange(20.0), np.arange(20.0) ** 1.1
    assert compare_means(before, after, rng()) == compare_means(before, after, rng())


def test_differences_that_are_all_zero_have_neither_interval_nor_p():
    found = compare_means([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], rng())
    assert found.difference == 0
    assert all(math.isnan(x) for x in (found.difference_low, found.difference_high, found.p_value))
    assert found.before_low <= 2 <= found.before_high


def test_a_quantity_that_is_zero_before_by_definition_has_an_interval_after():
    found = compare_means(np.zeros(12), rng().exponential(size=12), rng())
    assert math.isnan(found.before_low)
    assert 0 < found.difference_low < found.difference < found.difference_high
    assert found.p_value < 0.01


def test_one_item_has_a_difference_and_nothing_more():
    found = compare_means([1.0], [3.0], rng())
    assert (found.n, found.difference) == (1, 2)
    assert all(
        math.isnan(x) for x in (found.before_low, found.difference_low, found.difference_high, found.p_value)
    )


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(DataError, match="`after` holds 1 of 2 values that are not finite"):
        compare_means([1.0, 2.0], [1.0, math.nan], rng())


def test_kappa_matches_its_definition():
    first, second = [True] * 45 + [False] * 15 + [True] * 25 + [False] * 15, [True] * 60 + [False] * 40
    observed = (45 + 15) / 100
    chance = 0.70 * 0.60 + 0.30 * 0.40
    assert cohen_kappa(first, second) == pytest.approx((observed - chance) / (1 - chance))


def test_kappa_leaves_out_what_one_judge_could_not_judge():
    assert cohen_kappa([True, False, None, True], [True, False, True, None]) == 1
    assert cohen_kappa([True, False, math.nan], [False, True, True]) == -1


@pytest.mark.parametrize(
    ("first", "second"), [([], []), ([True, None], [None, True]), ([True, True], [True, True])]
)
def test_kappa_without_information_is_nan(first, second):
    assert math.isnan(cohen_kappa(first, second))


def test_kappa_of_judges_with_different_items_is_an_error():
    with pytest.raises(DataError, match="Found 1 and 2 verdicts"):
        cohen_kappa([True], [True, False])
