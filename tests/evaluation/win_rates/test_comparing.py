"""Answers are compared blindly in both orders; the majority of people decides."""

import math

import numpy as np
import pandas as pd
import pytest
from compared_answers import FIRST, POLICY, SECOND, TIE, Longer, make_answers, random_answers

from realignment.evaluation.win_rates.comparing import (
    COMPARISON_COLUMNS,
    combine_orders,
    compare_answers,
    list_voted_positions,
    tally_votes,
)
from realignment.evaluation.win_rates.figures import report_win_rates


def test_both_orders_are_asked_and_equal_answers_are_not():
    answers = make_answers(before=["a", "same", "ccc"], after=["bb", "same", "d"])
    judge = Longer()
    comparisons = compare_answers(answers, ("before", "after"), judge, POLICY)
    asked = [(pair.prompt, pair.first, pair.second, pair.domain) for pair in judge.asked]
    assert asked == [
        ("Prompt 0?", "a", "bb", "law"), ("Prompt 2?", "ccc", "d", "law"),
        ("Prompt 0?", "bb", "a", "law"), ("Prompt 2?", "d", "ccc", "law"),
    ]  # fmt: skip
    assert list(comparisons.columns) == list(COMPARISON_COLUMNS)
    assert comparisons["score"].tolist() == [0.0, 0.5, 1.0]
    assert comparisons["forward"].tolist() == comparisons["backward"].tolist() == ["second", "tie", "first"]
    assert comparisons["reason"][1] == "both answers are equal"


def test_a_judge_that_is_symmetric_is_asked_once():
    judge = Longer(symmetric=True)
    comparisons = compare_answers(random_answers(), ("before", "after"), judge, POLICY)
    twice = compare_answers(random_answers(), ("before", "after"), Longer(), POLICY)
    pd.testing.assert_frame_equal(comparisons, twice)
    assert len(judge.asked) == (random_answers()["before"] != random_answers()["after"]).sum()


@pytest.mark.parametrize(
    ("forward", "backward", "score"),
    [
        (FIRST, FIRST, 1.0), (SECOND, SECOND, 0.0), (TIE, TIE, 0.5), (FIRST, SECOND, 0.5),
        (FIRST, TIE, 0.5), (TIE, SECOND, 0.5), (None, FIRST, math.nan), (TIE, None, math.nan),
    ],
)  # fmt: skip
def test_two_orders_make_one_score_and_disagreement_is_a_tie(forward, backward, score):
    np.testing.assert_equal(combine_orders(forward, backward), score)


def test_a_prompt_that_one_model_has_not_answered_is_left_out():
    answers = make_answers(before=["a", None, "c"], after=["bb", "bb", None])
    comparisons = compare_answers(answers, ("before", "after"), Longer(), POLICY)
    assert comparisons["prompt"].tolist() == ["Prompt 0?"]


# --- people's votes


def make_key(rows):
    columns = ["task_id", "prompt", "kind", "response_a", "response_b", "model_a", "model_b"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(prompt_id=table["prompt"], domain=None)


KEY = make_key(
    [
        ("t1", "p1", "regulated", "a", "b", "before", "after"),
        ("t2", "p2", "regulated", "a", "b", "after", "before"),
        ("t3", "p3", "ordinary", "a", "b", "before", "after"),
        ("t4", "p4", "ordinary", "same", "same", "before", "after"),
        ("t5", "p5", "ordinary", "a", "b", "before", "after"),
    ]
)
VOTES = pd.DataFrame(
    [
        ("t1", "b", "ann"), ("t1", "b", "bo"), ("t1", "tie", "cy"),
        ("t2", "a", "ann"), ("t2", "b", "bo"),
        ("t3", "a", "ann"),
    ],
    columns=["task_id", "verdict", "annotator"],
)  # fmt: skip


def test_the_majority_of_people_decides_and_what_nobody_saw_is_not_guessed():
    table = tally_votes(VOTES, KEY)
    np.testing.assert_equal(table["score"].to_numpy(), [0.0, 0.5, 1.0, 0.5, math.nan])
    assert table["reason"].tolist() == ["", "", "", "", "nobody has voted"]
    found = report_win_rates(
        table, judge="people", positions=list_voted_positions(VOTES, KEY), resamples=200, seed=0
    )
    figures = found["groups"]["overall"]["win_rates"]["after"]["before"]
    assert (figures["n"], figures["wins"], figures["ties"], figures["losses"]) == (4, 1, 2, 1)
    assert (figures["win_rate"], found["unscored"]) == (0.5, 1)
    assert found["order_disagreements"] is None  # people see one order
    assert found["position_bias"]["share"] == pytest.approx(2 / 5)
