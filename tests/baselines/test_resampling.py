"""The resamples are what loops over drawn seeds and prompts give."""

import numpy as np
import pytest
from made_up_cells import crossed_values

from realignment.baselines.crossed import Term, estimate, number_clusters, sum_clusters
from realignment.baselines.resampling import draw_resamples, percentile_interval, resample

CLUSTERS = number_clusters(["a", "b", "b", "c", "d", "d", "d", "e"])


def naive_resample(first, second, clusters, drawn, which):
    """One resample: every drawn seed of each method answers every item of every drawn prompt."""
    means = []
    for name, table in (("first", first), ("second", second)):
        answers = [
            table[seed, item]
            for seed, times in enumerate(drawn.seeds[name][which])
            for _ in range(times)
            for prompt, often in enumerate(drawn.prompts[which])
            for _ in range(often)
            for item in range(len(clusters))
            if clusters[item] == prompt
        ]
        means.append(sum(answers) / len(answers))
    return means[0] - means[1]


def test_resamples_match_loops_over_the_same_draws():
    rng = np.random.default_rng(2)
    first = crossed_values(rng, seeds=3, prompts=len(CLUSTERS))
    second = crossed_values(rng, seeds=2, prompts=len(CLUSTERS))
    drawn = draw_resamples(5, {"first": 3, "second": 2}, resamples=40, rng=rng)
    sums = sum_clusters([Term(1, first), Term(-1, second)], CLUSTERS)
    found = resample(sums, (1, -1), drawn.prompts, [drawn.seeds["first"], drawn.seeds["second"]])
    expected = [naive_resample(first, second, CLUSTERS, drawn, which) for which in range(40)]
    np.testing.assert_allclose(found, expected)


def test_draws_are_as_many_as_there_are_and_of_each_method_by_itself():
    drawn = draw_resamples(7, {"a": 3, "b": 3}, resamples=500, rng=np.random.default_rng(0))
    assert (drawn.prompts.sum(axis=1) == 7).all()
    assert (drawn.seeds["a"].sum(axis=1) == 3).all()
    assert (drawn.seeds["a"] != drawn.seeds["b"]).any()
    np.testing.assert_allclose(drawn.seeds["a"].mean(axis=0), 1, atol=0.15)


def test_with_many_seeds_and_prompts_percentiles_and_t_agree():
    rng = np.random.default_rng(8)
    terms = [
        Term(sign, crossed_values(rng, seeds=40, prompts=80, mean=sign, seed_sd=0.4)) for sign in (1, -1)
    ]
    clusters = np.arange(80)
    drawn = draw_resamples(80, {"first": 40, "second": 40}, resamples=4000, rng=rng)
    values = resample(sum_clusters(terms, clusters), (1, -1), drawn.prompts, list(drawn.seeds.values()))
    assert percentile_interval(values) == pytest.approx(estimate(terms, clusters).interval(), abs=0.03)


def test_a_resample_without_a_scored_item_is_left_out():
    values = np.array([[0.5, np.nan, 0.7]])
    sums = sum_clusters([Term(1, values)], np.arange(3))
    prompts = np.array([[0, 3, 0], [1, 1, 1], [0, 1, 2]])
    found = resample(sums, (1,), prompts, [np.ones((3, 1))])
    np.testing.assert_allclose(found, [np.nan, 0.6, 0.7])
    low, high = percentile_interval(found)
    assert 0.6 < low < high < 0.7


def test_resamples_that_do_not_vary_have_no_interval():
    assert np.isnan(percentile_interval(np.full(10, 0.3))).all()
