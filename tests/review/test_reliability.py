"""Krippendorff's α is that of the reference implementation, with an interval that holds it."""

import krippendorff
import numpy as np
import pandas as pd
import pytest

from realignment.review.reliability import alpha_interval, krippendorff_alpha, report_reliability


def counts_of(table):
    """Units × annotators with NaN for gaps → units × values."""
    values = np.unique(table[~np.isnan(table)])
    return np.stack([(table == value).sum(axis=1) for value in values], axis=1)


@pytest.mark.parametrize("seed", range(8))
def test_alpha_is_that_of_the_reference_implementation(seed):
    rng = np.random.default_rng(seed)
    truth = rng.random(60) < 0.4
    table = np.where(rng.random((60, 4)) < 0.2, 1 - truth[:, None], truth[:, None]).astype(float)
    table[rng.random((60, 4)) < 0.3] = np.nan
    expected = krippendorff.alpha(reliability_data=table.T, level_of_measurement="nominal")
    assert krippendorff_alpha(counts_of(table)) == pytest.approx(expected)


def test_full_agreement_is_one_and_lone_verdicts_do_not_count():
    assert krippendorff_alpha(np.array([[2, 0], [0, 3], [1, 0]])) == 1.0


def test_alpha_is_unknown_where_nobody_can_disagree():
    assert np.isnan(krippendorff_alpha(np.array([[1, 0], [0, 1]])))
    assert np.isnan(krippendorff_alpha(np.array([[2, 0], [3, 0]])))
    assert np.isnan(alpha_interval(np.array([[2, 0]]), np.random.default_rng(0))).all()


@pytest.mark.slow
def test_the_interval_holds_the_alpha_of_the_population_nearly_always():
    def judged(rng, n):
        truth = rng.random(n) < 0.4
        said = np.where(rng.random((n, 3)) < 0.15, ~truth[:, None], truth[:, None])
        return np.stack([said.sum(axis=1), (~said).sum(axis=1)], axis=1)

    whole = krippendorff_alpha(judged(np.random.default_rng(99), 200_000))
    held = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        low, high = alpha_interval(judged(rng, 80), rng)
        held += low <= whole <= high
    assert 0.9 * 200 <= held <= 200


def test_the_report_counts_people_ties_and_gaps():
    verdicts = pd.DataFrame(
        [
            ("t1", True, "ann"),
            ("t1", True, "bo"),
            ("t2", True, "ann"),
            ("t2", False, "bo"),
            ("t3", None, "ann"),
        ],
        columns=["task_id", "complies", "annotator"],
    )
    verdicts["complies"] = pd.array(verdicts["complies"], dtype="boolean")
    report = report_reliability(verdicts, unfilled=4, seed=0)
    assert report["by_annotator"] == {
        "ann": {"complies": 2, "unsure": 1, "violates": 0}, "bo": {"complies": 1, "unsure": 0, "violates": 1},
    }  # fmt: skip
    assert (report["verdicts"], report["tasks"], report["unfilled"]) == (5, 3, 4)
    assert (report["judged_by_two_or_more"], report["ties"]) == (2, 1)
    assert report["alpha"] == pytest.approx(krippendorff_alpha(np.array([[2, 0], [1, 1]])))


def test_without_two_verdicts_on_anything_alpha_is_null():
    verdicts = pd.DataFrame({"task_id": ["t"], "complies": [True], "annotator": ["ann"]})
    report = report_reliability(verdicts, unfilled=0, seed=0)
    assert (report["alpha"], report["interval"]) == (None, [None, None])
