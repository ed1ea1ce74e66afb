"""Strengths are those that maximise the likelihood, and say so where it has no maximum."""

import math

import numpy as np
import pytest
import scipy.optimize

from realignment.evaluation.win_rates.bradley_terry import PRIOR, fit_strengths, is_bounded, rank_strengths


def maximise_likelihood(wins):
    """Σ wins_ij log σ(θ_i − θ_j) by a general optimiser, term by term: slow, and obviously right."""
    n = len(wins)

    def loss(free):
        theta = [0.0, *free]
        total = 0.0
        for i in range(n):
            for j in range(n):
                if i != j:
                    total += wins[i][j] * math.log1p(math.exp(theta[j] - theta[i]))
        return total

    found = scipy.optimize.minimize(loss, np.zeros(n - 1), method="BFGS", options={"gtol": 1e-9})
    theta = np.array([0.0, *found.x])
    return theta - theta.mean()


@pytest.mark.parametrize("n_models", [2, 3, 5])
def test_strengths_are_those_of_brute_force(n_models):
    rng = np.random.default_rng(n_models)
    wins = rng.integers(1, 30, size=(n_models, n_models)) + 0.5 * rng.integers(
        0, 2, size=(n_models, n_models)
    )
    np.testing.assert_allclose(fit_strengths(wins.astype(float)), maximise_likelihood(wins), atol=1e-6)


def test_strengths_where_not_every_two_models_met_are_those_of_brute_force():
    wins = np.array([[0, 3.5, 0], [1.5, 0, 4], [0, 6, 0]])
    np.testing.assert_allclose(fit_strengths(wins), maximise_likelihood(wins), atol=1e-6)


def test_of_two_models_the_strengths_differ_by_the_log_odds_of_the_win_rate():
    first, second = fit_strengths(np.array([[0, 30.0], [10.0, 0]]))
    assert first - second == pytest.approx(math.log(3))
    assert first + second == pytest.approx(0)


def test_many_tables_at_a_time_are_as_one_after_the_other():
    tables = np.random.default_rng(0).integers(1, 9, size=(20, 4, 4)).astype(float)
    tables[3] = np.triu(tables[3])  # the first one never loses
    together = fit_strengths(tables)
    np.testing.assert_allclose(together, [fit_strengths(table) for table in tables], atol=1e-8)


def test_a_model_that_never_loses_is_the_strongest_by_a_finite_distance():
    wins = np.array([[0, 20.0, 20], [0, 0, 12], [0, 8, 0]])
    assert not is_bounded(wins)
    strengths = fit_strengths(wins)
    assert np.isfinite(strengths).all()
    assert rank_strengths(strengths) == [1, 2, 3]
    prior = PRIOR * (1 - np.eye(3))
    np.testing.assert_allclose(strengths, maximise_likelihood(wins + prior), atol=1e-6)


def test_the_prior_is_not_there_where_the_likelihood_has_a_maximum():
    """One half win is enough: with the prior the odds would be 19.5 to 1 instead of 38 to 1."""
    wins = np.array([[0, 19.0], [0.5, 0]])
    assert is_bounded(wins)
    first, second = fit_strengths(wins)
    assert first - second == pytest.approx(math.log(38))


def naive_is_bounded(wins):
    """Every model is reached from every other one by a walk over wins."""
    for start in range(len(wins)):
        seen, todo = {start}, [start]
        while todo:
            here = todo.pop()
            for there in range(len(wins)):
                if wins[here][there] > 0 and there not in seen:
                    seen.add(there)
                    todo.append(there)
        if len(seen) < len(wins):
            return False
    return True


def test_a_maximum_is_found_to_exist_where_a_walk_over_wins_reaches_all():
    tables = np.random.default_rng(1).random((200, 5, 5)) < 0.4
    expected = [naive_is_bounded(table) for table in tables]
    assert is_bounded(tables.astype(float)).tolist() == expected
    assert 20 < sum(expected) < 180


def test_equal_models_have_equal_strengths_and_share_a_rank():
    strengths = fit_strengths(np.array([[0, 5.0, 9], [5, 0, 9], [1, 1, 0]]))
    assert strengths[0] == pytest.approx(strengths[1])
    assert rank_strengths(strengths) == [1, 1, 3]
