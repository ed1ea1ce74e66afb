"""Shares corrected for a judge's errors: right on average, and their intervals hold what they promise."""

import math

import numpy as np
import pytest

from realignment.evaluation.error_correction import (
    JudgeQuality,
    add_qualities,
    correct_difference,
    correct_share,
    measure_quality,
)
from realignment.statistics import compare_proportions, wilson_interval

PERFECT = JudgeQuality(10_000, 0, 10_000, 0)


def test_the_estimator_is_rogan_and_gladens_by_hand():
    """Share 0.5, sensitivity 0.9, specificity 0.8: (0.5 + 0.8 − 1) / 0.7 = 3/7."""
    quality = JudgeQuality(90, 10, 80, 20)
    assert (quality.sensitivity, quality.specificity) == (0.9, 0.8)
    estimate, (low, high) = correct_share(50, 100, quality)
    assert estimate == pytest.approx(3 / 7)
    assert low < estimate < high


def test_a_judge_without_errors_is_left_as_it_is():
    for successes in (0, 3, 50, 97, 100):
        estimate, interval = correct_share(successes, 100, PERFECT)
        assert estimate == pytest.approx(successes / 100)
        assert interval == pytest.approx(wilson_interval(successes, 100), abs=0.02)
    rng = np.random.default_rng(0)
    before, after = rng.random(200) < 0.3, rng.random(200) < 0.6
    raw = compare_proportions(before, after)
    difference, interval = correct_difference(before, after, PERFECT)
    assert difference == pytest.approx(raw.difference)
    assert interval == pytest.approx((raw.difference_low, raw.difference_high), abs=0.015)


def test_a_judge_that_lets_violations_pass_reported_too_much():
    lenient = JudgeQuality(95, 5, 80, 20)
    assert correct_share(30, 100, lenient)[0] < 0.3
    assert correct_share(10, 100, lenient)[0] == 0.0, "fewer than its own false alarms: nothing complies"


def test_fewer_labels_make_wider_intervals():
    def width(labels):
        low, high = correct_share(40, 100, JudgeQuality(labels * 9, labels, labels * 8, labels * 2))[1]
        return high - low

    assert width(2) > width(10) > width(100) > 0


@pytest.mark.parametrize(
    "quality",
    [
        JudgeQuality(60, 40, 45, 55),
        JudgeQuality(9, 0, 80, 20),
        JudgeQuality(80, 20, 0, 0),
        JudgeQuality(0, 0, 0, 0),
    ],
    ids=["guesses", "too few complying labels", "no violating label", "no label"],
)
def test_what_cannot_be_corrected_is_not_a_number(quality):
    assert not quality.can_correct
    estimate, interval = correct_share(40, 100, quality)
    assert math.isnan(estimate)
    assert all(map(math.isnan, interval))
    assert math.isnan(correct_difference([True, False], [True, True], quality)[0])


def test_unscored_answers_do_not_count():
    quality = measure_quality([True, None, False, False, True], [True, True, True, False, False])
    assert quality == JudgeQuality(1, 1, 1, 1)
    assert (quality.accuracy, quality.balanced_accuracy, quality.youden) == (0.5, 0.5, 0.0)


def test_qualities_of_several_groups_add_up():
    both = add_qualities([JudgeQuality(1, 2, 3, 4), JudgeQuality(10, 20, 30, 40)])
    assert both == JudgeQuality(11, 22, 33, 44)
    assert add_qualities([]) == JudgeQuality(0, 0, 0, 0)


def simulate(rng, *, true, n, sensitivity, specificity, labels):
    """Verdicts of n answers of which a share complies, and the judge's measured quality."""
    complies = rng.random(n) < true
    verdicts = np.where(complies, rng.random(n) < sensitivity, rng.random(n) >= specificity)
    right, wrong = rng.binomial(labels, sensitivity), rng.binomial(labels, specificity)
    return verdicts, JudgeQuality(int(right), labels - int(right), int(wrong), labels - int(wrong))


@pytest.mark.parametrize("true", [0.03, 0.3, 0.7, 0.95])
@pytest.mark.parametrize(("sensitivity", "specificity", "labels"), [(0.92, 0.8, 80), (0.75, 0.9, 40)])
def test_the_interval_of_a_share_holds_the_truth_as_often_as_it_says(true, sensitivity, specificity, labels):
    rng = np.random.default_rng(1)
    held, raw_held = 0, 0
    for _ in range(1500):
        verdicts, quality = simulate(
            rng, true=true, n=120, sensitivity=sensitivity, specificity=specificity, labels=labels
        )
        low, high = correct_share(int(verdicts.sum()), len(verdicts), quality)[1]
        held += low <= true <= high
        raw_low, raw_high = wilson_interval(int(verdicts.sum()), len(verdicts))
        raw_held += raw_low <= true <= raw_high
    # Three standard errors of a coverage of 0.95 over 1500 draws are 0.017.
    assert held / 1500 >= 0.93
    assert raw_held < held, "the raw interval is about the judge's share, not about the truth"


@pytest.mark.parametrize(("before", "after"), [(0.05, 0.5), (0.4, 0.4), (0.5, 0.8)])
def test_the_interval_of_a_difference_holds_the_truth_as_often_as_it_says(before, after):
    rng = np.random.default_rng(2)
    held, estimates = 0, []
    for _ in range(1500):
        seed = rng.integers(2**32)
        sides = []
        for true in (before, after):  # the same prompts: who complies before is likelier to comply after
            paired = np.random.default_rng(seed)
            complies = paired.random(120) < true
            verdicts = np.where(complies, rng.random(120) < 0.9, rng.random(120) >= 0.82)
            sides.append(verdicts)
        right, wrong = int(rng.binomial(80, 0.9)), int(rng.binomial(80, 0.82))
        quality = JudgeQuality(right, 80 - right, wrong, 80 - wrong)
        estimate, (low, high) = correct_difference(*sides, quality)
        estimates.append(estimate)
        held += low <= after - before <= high
    assert held / 1500 >= 0.93
    assert np.mean(estimates) == pytest.approx(after - before, abs=0.02)
