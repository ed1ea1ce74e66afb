"""Shares are in percent and points, others have their units."""

import math

import pytest

from realignment.baselines import wording


def test_shares_are_in_percent_and_their_differences_in_points():
    assert wording.value("capability:facts", 0.6512) == "65.1 %"
    assert wording.difference("capability:facts", -0.0312) == "-3.1"
    assert wording.unit_of("capability:facts") == "points"
    assert wording.interval("agreement", 0.1, 0.25) == "10.0 % to 25.0 %"


def test_other_figures_have_units():
    assert wording.label_of("kl_drift") == "drift (KL), nats/token"
    assert wording.label_of("capability:facts") == "capability: facts"
    assert wording.label_of("agreement") == "agreement"
    assert wording.label_of("distinct_2") == "distinct-2"
    assert wording.value("kl_drift", 0.2134) == "0.213"


@pytest.mark.parametrize(
    ("number", "text"), [(-0.0004, "0.0"), (0.0004, "0.0"), (-0.0006, "-0.1"), (0.0, "0.0")]
)
def test_what_rounds_to_zero_has_no_sign(number, text):
    assert wording.difference("agreement", number) == text


def test_no_interval_is_no_text():
    assert wording.interval("agreement", math.nan, 0.2) == ""


def test_seeds_that_failed_or_are_missing_are_counted(comparison):
    assert wording.count_seeds(comparison, "style", "npo_retain") == "2 (1 failed)"
    assert wording.count_seeds(comparison, "labels", "npo_retain") == "3"
    assert wording.count_seeds(comparison, "style", "trace, kl_weight=0.5") == "0 (3 missing)"
