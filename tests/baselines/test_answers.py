"""Sentences say what the figures say: above, below, not told apart, or not measured."""

import math
from dataclasses import replace

import pytest

from realignment.baselines.answers import answer_questions, describe_difference, turn_round

ROW = {
    "metric": "agreement", "first": "trace", "second": "sft", "difference": 0.123, "low": 0.05, "high": 0.2,
    "holm_low": 0.041, "holm_high": 0.205, "bootstrap_low": 0.06, "bootstrap_high": 0.19, "p_holm": 0.0042,
    "comparisons": 8, "first_seeds": 3, "second_seeds": 5, "clusters": 120, "covers": "seeds and prompts",
}  # fmt: skip


def test_above_is_said_with_points_interval_p_seeds_and_prompts():
    assert describe_difference(ROW) == (
        "trace is above sft by 12.3 points in agreement (corrected interval +4.1 to +20.5, corrected p = "
        "0.004 over 8 comparisons; 3 and 5 seeds, 120 prompts)."
    )


def test_turned_round_it_is_below_by_as_much():
    text = describe_difference(turn_round(ROW))
    assert text.startswith(
        "sft is below trace by 12.3 points in agreement (corrected interval -20.5 to -4.1,"
    )
    assert "; 5 and 3 seeds," in text
    assert turn_round(turn_round(ROW)) == ROW


def test_what_is_not_told_apart_is_said_so_whatever_its_size():
    text = describe_difference(ROW | {"p_holm": 0.0501, "holm_low": -0.001})
    assert text.startswith(
        "trace and sft cannot be told apart by agreement: +12.3 points (corrected interval -0.1"
    )


def test_one_seed_is_said():
    text = describe_difference(ROW | {"covers": "prompts alone", "first_seeds": 1, "second_seeds": 1})
    assert "; 1 and 1 seed, 120 prompts)" in text
    assert text.endswith("The interval covers prompts alone.")


def test_no_interval_is_no_claim():
    nothing = dict.fromkeys(("holm_low", "holm_high", "p_holm"), math.nan)
    text = describe_difference(ROW | nothing | {"metric": "kl_drift", "difference": 0.0})
    assert text == (
        "nothing can be said of trace and sft by drift (KL) (0 nats/token): the data give no interval."
    )


def test_other_metrics_have_their_units():
    text = describe_difference(ROW | {"metric": "logratio_dispreferred", "difference": -47.0, "p_holm": 1e-5})
    assert text.startswith("trace is below sft by 47 nats in log-ratio of violating answers (")
    assert "corrected p < 0.001" in text


def test_every_question_has_one_answer_per_set(comparison):
    for name in comparison.sets:
        answers = dict(answer_questions(comparison, name))
        assert list(answers) == [question.text for question in comparison.choices.questions]
        assert answers["What of U2A?"] == f"Not answered on {name}: no cell of u2a is finished."
        rows = comparison.asked(name)
        row = rows[(rows["metric"] == "logratio_dispreferred") & (rows["first"] == "sft")].iloc[0]
        expected = f"trace is below sft by {row['difference']:.3g} nats"
        assert expected in answers["Do violating answers become less likely?"]


def test_the_direction_of_a_question_is_the_one_that_was_asked(comparison):
    answers = dict(answer_questions(comparison, "style"))
    row = comparison.asked("style").query("metric == 'agreement' and first == 'naive_dpo'").iloc[0]
    assert row["second"] == "trace"
    told_apart = row["p_holm"] < 0.05
    points = f"{-100 * row['difference']:.1f} points"
    expected = (
        f"trace is above naive_dpo by {points}"
        if told_apart
        else f"cannot be told apart by agreement: +{points}"
    )
    assert expected in answers["Does triage pay?"]
    ceiling = comparison.asked("style").query("metric == 'agreement' and first == 'dpo_gold'").iloc[0]
    assert f"{100 * ceiling['difference']:.1f}" in answers["Is the ceiling reached?"]


def test_without_questions_the_comparator_is_compared_with_every_arm(comparison):
    plain = replace(comparison, choices=replace(comparison.choices, questions=()))
    answers = answer_questions(plain, "style")
    assert len(answers) == len(comparison.arms("style")) - 1
    assert all(question == "" and "trace" in answer for question, answer in answers)


def test_a_metric_that_one_of_them_lacks_is_not_answered(comparison):
    first = comparison.choices.questions[0]
    asked = replace(comparison.choices, questions=(replace(first, metric="win_rate"),))
    ((_, answer),) = answer_questions(replace(comparison, choices=asked), "labels")
    assert answer == "Not answered on labels: win rate is not measured of both trace and naive_dpo."


@pytest.mark.parametrize("p_value", [0.05, 0.06])
def test_the_limit_itself_is_not_below_it(p_value):
    assert "cannot be told apart" in describe_difference(ROW | {"p_holm": p_value})
