"""The cluster bootstrap: against a slow twin, and what clusters are for."""

import math

import numpy as np
import pytest

from realignment.evaluation import clustered
from realignment.evaluation.clustered import compare_clusters
from realignment.records import DataError
from realignment.statistics import compare_proportions, wilson_interval

BEFORE = [1, 1, 0, 1, 1, 0, 1, 1, 0, 1]
AFTER = [0, 1, 0, 0, 1, 0, 0, 1, 0, 0]
CLUSTERS = ["a", "a", "b", "b", "b", "c", "d", "d", "e", "e"]
RESAMPLES = 200


@pytest.fixture
def few_resamples(monkeypatch):
    monkeypatch.setattr(clustered, "RESAMPLES", RESAMPLES)


def naive_comparison(rng):
    """Every resample as a list of answers, one after another."""
    keys = sorted(set(CLUSTERS))
    drawn = rng.multinomial(len(keys), [1 / len(keys)] * len(keys), size=RESAMPLES)
    shares = []
    for counts in drawn:
        rows = [
            row
            for key, count in zip(keys, counts, strict=True)
            for row in [i for i, cluster in enumerate(CLUSTERS) if cluster == key] * count
        ]
        before, after = ([side[row] for row in rows] for side in (BEFORE, AFTER))
        shares.append((sum(before) / len(rows), sum(after) / len(rows)))
    observed = abs(sum(AFTER) - sum(BEFORE))
    extreme = 0
    for signs in rng.choice([-1.0, 1.0], size=(RESAMPLES, len(keys))):
        sign = dict(zip(keys, signs, strict=True))
        total = sum(sign[c] * (a - b) for b, a, c in zip(BEFORE, AFTER, CLUSTERS, strict=True))
        extreme += abs(total) >= observed
    return np.array(shares), (1 + extreme) / (1 + RESAMPLES)


def test_intervals_and_p_are_those_of_answers_drawn_cluster_by_cluster(few_resamples):
    shares, p_value = naive_comparison(np.random.default_rng(3))
    found = compare_clusters(BEFORE, AFTER, CLUSTERS, np.random.default_rng(3))
    assert (found.n, found.before, found.after) == (10, 0.7, pytest.approx(0.3))
    assert (found.before_low, found.before_high) == pytest.approx(
        tuple(np.quantile(shares[:, 0], [0.025, 0.975]))
    )
    assert (found.after_low, found.after_high) == pytest.approx(
        tuple(np.quantile(shares[:, 1], [0.025, 0.975]))
    )
    change = shares[:, 1] - shares[:, 0]
    assert (found.difference_low, found.difference_high) == pytest.approx(
        tuple(np.quantile(change, [0.025, 0.975]))
    )
    assert found.p_value == pytest.approx(p_value)


def test_the_same_answers_again_in_their_clusters_are_no_new_evidence():
    once = compare_clusters(BEFORE, AFTER, CLUSTERS, np.random.default_rng(0))
    thrice = compare_clusters(BEFORE * 3, AFTER * 3, CLUSTERS * 3, np.random.default_rng(0))
    assert thrice.n == 3 * once.n
    for name in ("before_low", "after_high", "difference_low", "difference_high", "p_value"):
        assert getattr(thrice, name) == pytest.approx(getattr(once, name)), name
    pooled = compare_proportions(np.array(BEFORE * 3, bool), np.array(AFTER * 3, bool))
    width = thrice.difference_high - thrice.difference_low
    assert width > pooled.difference_high - pooled.difference_low


def test_with_a_cluster_for_each_answer_it_is_near_the_usual_interval():
    rng = np.random.default_rng(1)
    before, after = rng.random(300) < 0.6, rng.random(300) < 0.3
    found = compare_clusters(before, after, range(300), np.random.default_rng(2))
    usual = compare_proportions(before, after)
    assert found.before_low == pytest.approx(usual.before_low, abs=0.01)
    assert found.difference_low == pytest.approx(usual.difference_low, abs=0.02)
    assert found.difference_high == pytest.approx(usual.difference_high, abs=0.02)
    assert found.p_value < 0.001


def test_where_nothing_ever_succeeds_the_interval_is_as_wide_as_the_clusters_are_few():
    found = compare_clusters([0] * 12, [1] * 12, [0, 1, 2] * 4, np.random.default_rng(0))
    assert (found.before_low, found.before_high) == wilson_interval(0, 3)
    assert (found.after_low, found.after_high) == wilson_interval(3, 3)
    assert math.isnan(found.difference_low)
    assert found.difference == 1


def test_a_single_cluster_says_nothing_of_others():
    found = compare_clusters([0, 1], [1, 1], ["a", "a"], np.random.default_rng(0))
    assert (found.before, found.after) == (0.5, 1)
    for name in ("before_low", "after_low", "difference_low", "p_value"):
        assert math.isnan(getattr(found, name)), name


def test_no_answers_or_too_few_keys_are_refused():
    for arguments in (([], [], []), ([1, 0], [1, 0], ["a"]), ([1, 0], [1], ["a", "b"])):
        with pytest.raises(DataError, match="expected the same number of each"):
            compare_clusters(*arguments, np.random.default_rng(0))
