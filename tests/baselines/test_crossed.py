"""Means, differences and their standard errors are what loops over seeds and prompts give."""

import math

import numpy as np
import pytest
from made_up_cells import crossed_values

from realignment.baselines.crossed import Covers, Term, estimate, mean_interval, number_clusters

SEEDS, PROMPTS = 4, 12


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def values_of(rng, seeds=SEEDS, items=PROMPTS):
    return crossed_values(rng, seeds=seeds, prompts=items, seed_sd=0.5, prompt_sd=0.6, noise_sd=0.4)


def mean_squares(table):
    """Mean squares of seeds, prompts, and both, of a table (seeds, prompts): an analysis of variance."""
    seeds, prompts = table.shape
    grand = table.mean()
    by_seed, by_prompt, both = 0.0, 0.0, 0.0
    for s in range(seeds):
        by_seed += prompts * (table[s].mean() - grand) ** 2
    for p in range(prompts):
        by_prompt += seeds * (table[:, p].mean() - grand) ** 2
    for s in range(seeds):
        for p in range(prompts):
            both += (table[s, p] - table[s].mean() - table[:, p].mean() + grand) ** 2
    return by_seed / (seeds - 1), by_prompt / (prompts - 1), both / ((seeds - 1) * (prompts - 1))


def test_the_standard_error_of_a_mean_is_that_of_a_two_way_analysis_of_variance(rng):
    table = values_of(rng)
    found = estimate([Term(1, table)], np.arange(PROMPTS))
    by_seed, by_prompt, both = mean_squares(table)
    parts = [by_seed / table.size, by_prompt / table.size, both / table.size]
    variance = parts[0] + parts[1] - parts[2]
    assert variance > max(parts)  # so that the floor does not matter here
    assert found.value == pytest.approx(table.mean())
    assert found.error == pytest.approx(math.sqrt(variance))
    degrees = (SEEDS - 1, PROMPTS - 1, (SEEDS - 1) * (PROMPTS - 1))
    satterthwaite = variance**2 / sum(part**2 / n for part, n in zip(parts, degrees, strict=True))
    assert found.freedom == pytest.approx(max(satterthwaite, SEEDS - 1))


def naive_difference(first, second, clusters):
    """Value and variance of a difference with unequal prompts: sums of residuals and their squares."""
    n = first.shape[1]
    prompts = sorted(set(clusters))
    value = first.mean() - second.mean()
    over_prompts = 0.0
    for prompt in prompts:
        residual = 0.0
        for item in range(n):
            if clusters[item] == prompt:
                residual += first[:, item].mean() - second[:, item].mean() - value
        over_prompts += (residual / n) ** 2
    over_prompts *= len(prompts) / (len(prompts) - 1)
    over_seeds, overlap = 0.0, 0.0
    for table in (first, second):
        count = len(table)
        means = [row.mean() for row in table]
        over_seeds += sum((mean - np.mean(means)) ** 2 for mean in means) / (count - 1) / count
        for prompt in prompts:
            members = [item for item in range(n) if clusters[item] == prompt]
            sums = [sum(table[s, item] - means[s] for item in members) for s in range(count)]
            for one in sums:
                overlap += (
                    ((one - np.mean(sums)) / n) ** 2 * len(prompts) / (len(prompts) - 1) / (count - 1) / count
                )
    return value, max(over_prompts + over_seeds - overlap, over_prompts, over_seeds)


@pytest.mark.parametrize("draw", range(5))
def test_a_difference_with_prompts_of_unequal_size_matches_loops(draw):
    rng = np.random.default_rng(draw)
    clusters = number_clusters(["a", "b", "b", "c", "c", "c", "d", "e", "f", "f", "g", "h"])
    first, second = values_of(rng, seeds=3), values_of(rng, seeds=5)
    found = estimate([Term(1, first), Term(-1, second)], clusters)
    value, variance = naive_difference(first, second, clusters)
    assert found.value == pytest.approx(value)
    assert found.error == pytest.approx(math.sqrt(variance))
    assert (found.n, found.clusters, found.covers) == (12, 8, Covers.ALL)


def test_order_turned_round_turns_the_sign_alone(rng):
    first, second = values_of(rng), values_of(rng)
    clusters = np.arange(PROMPTS)
    one = estimate([Term(1, first), Term(-1, second)], clusters)
    other = estimate([Term(1, second), Term(-1, first)], clusters)
    assert one.value == pytest.approx(-other.value)
    assert (one.error, one.freedom, one.p_value) == pytest.approx((other.error, other.freedom, other.p_value))
    assert one.interval() == pytest.approx((-other.interval().high, -other.interval().low))


def test_a_method_against_itself_differs_by_zero(rng):
    values = values_of(rng)
    found = estimate([Term(1, values), Term(-1, values)], np.arange(PROMPTS))
    assert found.value == 0
    assert found.p_value == 1
    low, high = found.interval()
    assert low < 0 < high


def test_what_all_methods_share_on_a_prompt_cancels_in_a_difference(rng):
    first, second = values_of(rng), values_of(rng)
    shared = rng.normal(0, 50, PROMPTS)
    clusters = np.arange(PROMPTS)
    plain = estimate([Term(1, first), Term(-1, second)], clusters)
    shifted = estimate([Term(1, first + shared), Term(-1, second + shared)], clusters)
    assert shifted.error == pytest.approx(plain.error)
    assert estimate([Term(1, first + shared)], clusters).error > 10 * plain.error


def test_an_item_that_one_seed_lacks_is_left_out_of_both_methods(rng):
    first, second = values_of(rng), values_of(rng)
    gaps = first.copy()
    gaps[2, 5] = np.nan
    clusters = np.arange(PROMPTS)
    kept = np.delete(np.arange(PROMPTS), 5)
    found = estimate([Term(1, gaps), Term(-1, second)], clusters)
    expected = estimate([Term(1, first[:, kept]), Term(-1, second[:, kept])], np.arange(len(kept)))
    assert (found.value, found.error, found.freedom) == pytest.approx(
        (expected.value, expected.error, expected.freedom)
    )
    assert (found.n, found.clusters) == (PROMPTS - 1, PROMPTS - 1)


def test_units_do_not_matter(rng):
    first, second = values_of(rng), values_of(rng)
    clusters = np.arange(PROMPTS)
    one = estimate([Term(1, first), Term(-1, second)], clusters)
    other = estimate([Term(1, 1000 * first + 7), Term(-1, 1000 * second + 7)], clusters)
    assert other.error == pytest.approx(1000 * one.error)
    assert other.p_value == pytest.approx(one.p_value)


def test_one_seed_says_that_it_knows_of_prompts_alone(rng):
    one, several = values_of(rng, seeds=1), values_of(rng, seeds=3)
    clusters = np.arange(PROMPTS)
    assert estimate([Term(1, one)], clusters).covers == Covers.PROMPTS
    assert estimate([Term(1, one, trained=False)], clusters).covers == Covers.UNTRAINED
    assert estimate([Term(1, several), Term(-1, one)], clusters).covers == Covers.PART
    assert estimate([Term(1, several), Term(-1, one, trained=False)], clusters).covers == Covers.ALL
    assert estimate([Term(1, one), Term(-1, one + 1)], clusters).covers == Covers.NOTHING  # nothing varies
    # With one seed it is the standard error of a mean over prompts.
    assert estimate([Term(1, one)], clusters).error == pytest.approx(one.std(ddof=1) / math.sqrt(PROMPTS))


def test_one_item_such_as_the_bits_per_byte_of_a_text_varies_over_seeds_alone(rng):
    values = values_of(rng, seeds=3, items=1)
    found = estimate([Term(1, values)], np.zeros(1, dtype=np.intp))
    assert found.covers == Covers.SEEDS
    assert found.error == pytest.approx(values.std(ddof=1) / math.sqrt(3))
    assert found.freedom == 2
    alone = estimate([Term(1, values[:1])], np.zeros(1, dtype=np.intp))
    assert alone.covers == Covers.NOTHING
    assert math.isnan(alone.interval().low)
    assert math.isnan(alone.p_value)


def test_no_common_item_is_no_number(rng):
    first, second = np.array([[1.0, np.nan]]), np.array([[np.nan, 1.0]])
    found = estimate([Term(1, first), Term(-1, second)], np.arange(2))
    assert (found.n, found.covers) == (0, Covers.NOTHING)
    assert math.isnan(found.value)


def test_the_interval_of_a_share_of_one_seed_is_wilsons_with_a_t_quantile():
    # 60 of 300: n_effective is 299 as the variance has n − 1, so close to Wilson's of 300.
    values = np.repeat([1.0, 0.0], [60, 240])[None]
    low, high = mean_interval(estimate([Term(1, values)], np.arange(300), share=True))
    assert (low, high) == pytest.approx((0.1585, 0.2490), abs=0.001)  # Wilson: 0.1586 to 0.2489


@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_shares_that_do_not_vary_still_have_intervals(constant):
    values = np.full((3, 100), constant)
    clusters = np.arange(100)
    low, high = mean_interval(estimate([Term(1, values)], clusters, share=True))
    assert 0 <= low < high <= 1
    assert (high if constant == 0 else 1 - low) == pytest.approx(0.038, abs=0.002)
    difference = estimate([Term(1, values), Term(-1, values)], clusters, share=True)
    assert difference.p_value == 1
    # Wider than none changed of 100 could hide (3/100), less than twice that.
    assert 0.02 < difference.interval().high < 0.06
    # The same numbers as quantities: nothing can be said of what never varies.
    assert math.isnan(mean_interval(estimate([Term(1, values)], clusters)).low)
