"""A calibration makes probabilities mean what they say, and keeps their order."""

import numpy as np
import pytest

from realignment.oracles.calibration import fit_calibration

METHODS = ("platt", "isotonic")


def boastful(n, *, seed=0):
    """Truths, and probabilities whose log-odds are three times too large."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(size=n) * 1.5
    truth = rng.random(n) < 1 / (1 + np.exp(-odds))
    return 1 / (1 + np.exp(-3 * odds)), truth, odds


@pytest.mark.parametrize("method", METHODS)
def test_probabilities_that_boast_become_those_that_are_true(method):
    raw, truth, _ = boastful(4000)
    correct = fit_calibration(method, raw, truth)
    fresh, _, odds = boastful(2000, seed=1)
    honest = 1 / (1 + np.exp(-odds))
    assert np.abs(fresh - honest).mean() > 0.1
    assert np.abs(correct(fresh) - honest).mean() < 0.03


def test_platt_recovers_the_scale_of_the_log_odds():
    raw, truth, _ = boastful(20_000)
    fitted = fit_calibration("platt", raw, truth)
    assert fitted.slope == pytest.approx(1 / 3, rel=0.05)
    assert fitted.intercept == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_stays_and_nothing_becomes_certain(method):
    raw, truth, _ = boastful(300)
    correct = fit_calibration(method, raw, truth)
    values = correct(np.linspace(0, 1, 101))
    assert (np.diff(values) >= 0).all()
    assert (values > 0).all()
    assert (values < 1).all()


@pytest.mark.parametrize("method", METHODS)
def test_labels_that_are_told_apart_perfectly_leave_room_for_doubt(method):
    raw = np.r_[np.full(20, 0.1), np.full(20, 0.9)]
    correct = fit_calibration(method, raw, raw > 0.5)
    low, high = correct(np.array([0.1, 0.9]))
    assert 0.01 < low < 0.2
    assert 0.8 < high < 0.99
