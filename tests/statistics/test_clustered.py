"""Clustered comparisons against drawing clusters one by one, and what must hold for any clusters."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest

from realignment.records import DataError
from realignment.statistics import (
    compare_clustered,
    compare_means,
    compare_proportions,
    newcombe_interval,
    wilson_interval,
)


def rng():
    return np.random.default_rng(7)


CLUSTERED = {
    "before": [0.1, 0.4, 0.3, 0.9, 0.7, 0.2, 0.5, 0.8, 0.6, 0.35],
    "after": [0.3, 0.5, 0.9, 0.8, 1.1, 0.6, 0.4, 1.2, 0.9, 0.75],
    "clusters": ["a", "a", "b", "c", "c", "c", "d", "e", "f", "f"],
}


def naive_cluster_bootstrap(values, clusters, draws=4000):
    """Percentiles of the mean over clusters drawn one by one: slow, and obviously right."""
    source = np.random.default_rng(11)
    groups = {}
    for value, cluster in zip(values, clusters, strict=True):
        groups.setdefault(cluster, []).append(value)
    names = list(groups)
    means = []
    for _ in range(draws):
        drawn = []
        for _ in names:
            drawn += groups[names[source.integers(len(names))]]
        means.append(np.mean(drawn))
    return np.quantile(means, [0.025, 0.975])


def test_clustered_intervals_match_drawing_whole_clusters_one_by_one():
    source = np.random.default_rng(3)
    clusters = np.repeat(np.arange(60), source.integers(1, 5, size=60))
    level = source.normal(size=60)[clusters]
    before = level + 0.3 * source.normal(size=len(clusters))
    after = 0.5 * level + 0.2 + 0.3 * source.normal(size=len(clusters))
    found = compare_clustered(before, after, clusters.tolist(), rng())
    for side, values in {"before": before, "after": after, "difference": after - before}.items():
        low, high = naive_cluster_bootstrap(values, clusters)
        width = high - low
        assert getattr(found, f"{side}_low") == pytest.approx(low, abs=0.12 * width)
        assert getattr(found, f"{side}_high") == pytest.approx(high, abs=0.12 * width)
        assert getattr(found, side) == pytest.approx(values.mean())


def test_clusters_of_one_item_give_the_intervals_of_single_items():
    before, after = CLUSTERED["before"], CLUSTERED["after"]
    clustered = compare_clustered(before, after, range(10), rng())
    single = compare_means(before, after, rng())
    for name in (
        "n",
        "before",
        "before_low",
        "before_high",
        "after_low",
        "difference_low",
        "difference_high",
    ):
        assert getattr(clustered, name) == pytest.approx(getattr(single, name))


def test_copies_of_the_items_leave_clustered_intervals_as_they_are():
    once = compare_clustered(**CLUSTERED, rng=rng())
    twice = compare_clustered(**{name: list(values) * 2 for name, values in CLUSTERED.items()}, rng=rng())
    assert (once.n, twice.n) == (10, 20)
    # Sums of twice as many terms round otherwise, which moves a quantile by one of the resamples.
    for name in ("before", "before_low", "after_high", "difference", "difference_low", "difference_high"):
        assert getattr(twice, name) == pytest.approx(getattr(once, name), abs=0.01)
    assert twice.p_value == once.p_value


def test_items_that_share_clusters_know_less_than_single_ones():
    share_before = np.repeat([True, False, False, True, False, False], 8)
    share_after = np.repeat([True, True, False, True, True, False], 8)
    clusters = np.repeat(np.arange(6), 8).tolist()
    clustered = compare_clustered(share_before, share_after, clusters, rng())
    single = compare_proportions(share_before, share_after)
    assert clustered.before == single.before
    for side in ("before", "after", "difference"):
        widths = [
            getattr(found, f"{side}_high") - getattr(found, f"{side}_low") for found in (clustered, single)
        ]
        assert widths[0] > 1.5 * widths[1]
    assert clustered.p_value > 0.2 > single.p_value


def test_the_sign_flip_matches_every_combination_of_signs():
    found = compare_clustered(**CLUSTERED, rng=rng())
    change = np.array(CLUSTERED["after"]) - np.array(CLUSTERED["before"])
    totals = pd.Series(change).groupby(CLUSTERED["clusters"]).sum().to_numpy()
    flips = [abs(np.dot(signs, totals)) for signs in product([-1, 1], repeat=len(totals))]
    exact = np.mean(np.array(flips) >= abs(totals.sum()) - 1e-12)
    assert found.p_value == pytest.approx(exact, abs=0.015)
    assert found.test == "cluster sign flip"


def test_a_clustered_share_that_does_not_vary_has_the_width_of_its_clusters():
    none, every = np.zeros(12, dtype=bool), np.ones(12, dtype=bool)
    clusters = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    found = compare_clustered(none, none, clusters, rng())
    assert (found.before_low, found.before_high) == pytest.approx(wilson_interval(0, 4))
    assert (found.difference_low, found.difference_high) == pytest.approx(newcombe_interval(0, 0, 0, 4))
    assert found.p_value == 1
    turned = compare_clustered(none, every, clusters, rng())
    assert (turned.after_low, turned.after_high) == pytest.approx(wilson_interval(4, 4))
    assert (turned.difference_low, turned.difference_high) == pytest.approx(newcombe_interval(0, 0, 4, 0))
    measured = compare_clustered(none.astype(float), none.astype(float), clusters, rng())
    assert math.isnan(measured.before_low)
    assert math.isnan(measured.difference_high)


def test_one_cluster_has_no_interval_of_a_mean_and_never_a_small_p():
    found = compare_clustered([1.0, 2.0, 3.0], [2.0, 4.0, 5.0], ["same"] * 3, rng())
    assert math.isnan(found.difference_low)
    assert found.p_value == 1


def test_clustered_intervals_cover_the_truth_in_about_95_of_100_simulated_evaluations(monkeypatch):
    monkeypatch.setattr("realignment.statistics.clustered.RESAMPLES", 400)
    source = np.random.default_rng(5)
    clusters = np.repeat(np.arange(40), 4)
    covered = 0
    for _ in range(150):
        rates = source.beta(1, 1, size=(2, 40))
        before, after = source.random((2, 160)) < np.repeat(rates, 4, axis=1)
        found = compare_clustered(before, after, clusters.tolist(), source)
        covered += found.difference_low <= 0 <= found.difference_high
    assert 0.89 <= covered / 150 <= 0.99


@pytest.mark.parametrize(
    ("clusters", "said"),
    [(["a"], "1 clusters for 2 items"), (["a", None], "1 of 2 items have no cluster")],
)
def test_every_item_needs_a_cluster(clusters, said):
    with pytest.raises(DataError, match=said):
        compare_clustered([1.0, 2.0], [1.0, 2.0], clusters, rng())


def test_nothing_to_compare_by_cluster_is_an_error():
    with pytest.raises(DataError, match="at least one"):
        compare_clustered([], [], [], rng())
