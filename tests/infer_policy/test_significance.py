"""Score tests: uniform without effects, robust where pairs repeat, and no trouble with separation."""

import numpy as np
import pytest
import scipy

from realignment.infer_policy.significance import adjust_p_values, score_tests


def draw(rng, n, coefficients):
    inputs = rng.normal(size=(n, len(coefficients)))
    first = (inputs @ coefficients + rng.logistic(size=n) > 0).astype(int)
    return inputs, first


def test_without_effects_p_is_uniform():
    rng = np.random.default_rng(0)
    values = [p for _ in range(100) for p in score_tests(*draw(rng, 200, np.zeros(3)), np.arange(200))]
    assert scipy.stats.kstest(values, "uniform").pvalue > 0.01


def test_an_input_is_judged_with_those_before_it_being_equal():
    rng = np.random.default_rng(1)
    inputs, first = draw(rng, 600, np.array([1.0, 0.0]))
    inputs[:, 1] = inputs[:, 0] + rng.normal(size=600)  # it goes with the first, and adds nothing
    alone = score_tests(inputs[:, 1:], first, np.arange(600))
    together = score_tests(inputs, first, np.arange(600))
    assert alone[0] < 1e-6
    assert together[0] < 1e-6
    assert together[1] > 0.01


def test_of_two_inputs_that_say_the_same_the_first_is_found():
    rng = np.random.default_rng(5)
    inputs, first = draw(rng, 300, np.array([1.0]))
    p = score_tests(np.hstack([inputs, inputs]), first, np.arange(300))
    assert p[0] < 1e-6
    assert p[1] > 0.5


def test_pairs_that_repeat_count_once():
    """Ten copies of each pair are no more evidence than one."""
    rng = np.random.default_rng(2)
    inputs, first = draw(rng, 80, np.array([0.4, 0.0]))
    once = score_tests(inputs, first, np.arange(80))
    copies = score_tests(np.repeat(inputs, 10, axis=0), np.repeat(first, 10), np.repeat(np.arange(80), 10))
    assert copies == pytest.approx(once, rel=0.05)


def test_a_perfect_predictor_is_found():
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(100, 2))
    first = (inputs[:, 0] > 0).astype(int)
    p = score_tests(inputs, first, np.arange(100))
    assert p[0] < 1e-8
    assert p[1] > 0.01


def test_turning_a_pair_around_changes_nothing():
    rng = np.random.default_rng(4)
    inputs, first = draw(rng, 150, np.array([0.5, -0.5, 0.0]))
    signs = rng.choice([-1, 1], size=150)
    turned = score_tests(inputs * signs[:, None], np.where(signs > 0, first, 1 - first), np.arange(150))
    assert turned == pytest.approx(score_tests(inputs, first, np.arange(150)), rel=1e-3)


def test_q_values_by_hand():
    """Benjamini & Hochberg: p times m over rank, made monotone from the largest down."""
    assert adjust_p_values(np.array([0.01, 0.04, 0.03, 0.5])) == pytest.approx(
        [0.04, 0.16 / 3, 0.16 / 3, 0.5]
    )
    assert len(adjust_p_values(np.array([]))) == 0
