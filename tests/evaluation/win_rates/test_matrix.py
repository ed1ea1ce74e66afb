"""The matrix of win rates is that of slow, plain computations, and the same from both sides."""

import numpy as np
import pandas as pd
import pytest
from compared_answers import POLICY, Longer, make_answers, random_answers, report

from realignment.evaluation.win_rates.bradley_terry import fit_strengths
from realignment.evaluation.win_rates.comparing import compare_answers
from realignment.evaluation.win_rates.matrix import sum_wins
from realignment.statistics import wilson_interval


def naive_win_rate(answers, first, second):
    """Wins and half the ties over all prompts, answer by answer."""
    score = 0.0
    for a, b in zip(answers[first], answers[second], strict=True):
        score += 1.0 if len(a) > len(b) else 0.5 if len(a) == len(b) else 0.0
    return score / len(answers)


MODELS = ("x", "y", "z")


@pytest.fixture(scope="module")
def three():
    answers = random_answers(60, MODELS)
    return answers, compare_answers(answers, MODELS, Longer(), POLICY)


def test_the_matrix_is_that_of_counting_answer_by_answer(three):
    answers, comparisons = three
    matrix = report(comparisons)["groups"]["overall"]["win_rates"]
    for first in MODELS:
        for second in set(MODELS) - {first}:
            figures = matrix[first][second]
            assert figures["win_rate"] == pytest.approx(naive_win_rate(answers, first, second), abs=1e-12)
            assert figures["wins"] + figures["ties"] + figures["losses"] == figures["n"] == 60
            assert figures["low"] < figures["win_rate"] < figures["high"]


def test_the_matrix_is_its_own_mirror(three):
    _, comparisons = three
    for group in report(comparisons)["groups"].values():
        for first in MODELS:
            for second in set(MODELS) - {first}:
                one, other = group["win_rates"][first][second], group["win_rates"][second][first]
                assert one["win_rate"] + other["win_rate"] == pytest.approx(1)
                assert one["low"] + other["high"] == pytest.approx(1)
                assert (one["wins"], one["p_value"]) == (other["losses"], other["p_value"])


def test_other_names_and_another_order_of_models_mirror_the_figures(three):
    answers, comparisons = three
    swapped = compare_answers(answers, MODELS[::-1], Longer(), POLICY)
    one, other = (report(table)["groups"]["regulated"] for table in (comparisons, swapped))
    for first in MODELS:
        assert other["strengths"][first] == pytest.approx(one["strengths"][first], abs=1e-6)
        for second in set(MODELS) - {first}:
            assert other["win_rates"][first][second] == pytest.approx(one["win_rates"][first][second])


def test_the_order_of_prompts_does_not_matter(three):
    answers, comparisons = three
    shuffled = compare_answers(answers.sample(frac=1, random_state=1), MODELS, Longer(), POLICY)
    one, other = report(comparisons), report(shuffled)
    assert other["position_bias"] == pytest.approx(one["position_bias"])
    for first, second in (("x", "y"), ("y", "z")):
        figures = [r["groups"]["overall"]["win_rates"][first][second] for r in (one, other)]
        assert figures[0] == pytest.approx(figures[1])


def test_equal_models_win_half():
    answers = random_answers(30).assign(copy=lambda table: table["before"])
    found = report(compare_answers(answers, ("before", "copy"), Longer(), POLICY))
    figures = found["groups"]["overall"]["win_rates"]["copy"]["before"]
    assert (figures["win_rate"], figures["ties"], figures["p_value"]) == (0.5, 30, 1.0)
    assert figures["low"] == pytest.approx(1 - figures["high"])
    # What 30 prompts would not show: up to 11 % of prompts on which one of the two wins.
    assert figures["high"] == pytest.approx(0.5 + wilson_interval(0, 30).high / 2)
    strengths = found["groups"]["overall"]["strengths"]
    assert [strengths[model]["rank"] for model in ("before", "copy")] == [1, 1]


def test_a_model_that_always_wins_has_the_interval_of_wilson_and_no_invented_bound_of_its_strength():
    answers = make_answers(before=["a"] * 20, after=["bb"] * 20)
    group = report(compare_answers(answers, ("before", "after"), Longer(), POLICY))["groups"]["overall"]
    figures = group["win_rates"]["after"]["before"]
    assert (figures["win_rate"], figures["high"]) == (1.0, 1.0)
    assert figures["low"] == pytest.approx(wilson_interval(20, 20).low)
    assert not group["strengths_bounded"]
    assert group["strengths"]["after"]["low"] is None
    assert group["strengths"]["after"]["rank"] == 1
    assert figures["p_value"] == pytest.approx(2 / 2**20)


def test_the_intervals_are_those_of_a_plain_bootstrap_over_prompts(three):
    _, comparisons = three
    part = comparisons[comparisons["first_model"].eq("x") & comparisons["second_model"].eq("y")]
    rng = np.random.default_rng(11)
    scores = part["score"].to_numpy()  # one per prompt
    means = [np.mean([scores[i] for i in rng.integers(0, 60, 60)]) for _ in range(4000)]
    expected = np.percentile(means, [2.5, 97.5])
    figures = report(part, resamples=4000)["groups"]["overall"]["win_rates"]["x"]["y"]
    assert [figures["low"], figures["high"]] == pytest.approx(expected, abs=0.012)


def test_answers_that_share_a_prompt_are_one_cluster():
    """Each prompt answered four times: as many prompts as before, so the interval must not shrink."""
    once = compare_answers(random_answers(30), ("before", "after"), Longer(), POLICY)
    often = pd.concat([once] * 4, ignore_index=True)
    alone, repeated = (
        report(table)["groups"]["overall"]["win_rates"]["after"]["before"] for table in (once, often)
    )
    assert repeated["n"] == 4 * alone["n"]
    assert repeated["prompts"] == alone["prompts"] == 30
    for name in ("win_rate", "low", "high", "p_value"):
        assert repeated[name] == pytest.approx(alone[name])


def test_the_interval_covers_the_true_win_rate_as_often_as_it_says():
    rng = np.random.default_rng(5)
    covered = 0
    for seed in range(100):
        score = rng.choice([0.0, 0.5, 1.0], size=60, p=[0.25, 0.3, 0.45])  # the true win rate is 0.6
        table = pd.DataFrame({"prompt": [f"{i}" for i in range(60)], "kind": "held_out", "score": score})
        table = table.assign(first_model="x", second_model="y", forward="first", backward="first", reason="")
        figures = report(table, positions=None, resamples=200, seed=seed)["groups"]["overall"]
        interval = figures["win_rates"]["x"]["y"]
        covered += interval["low"] <= 0.6 <= interval["high"]
    assert 0.88 <= covered / 100 <= 0.99


def test_strengths_are_those_of_the_summed_wins(three):
    _, comparisons = three
    strengths = report(comparisons)["groups"]["overall"]["strengths"]
    wins = sum_wins(comparisons, MODELS)
    assert wins.sum() == len(comparisons)
    expected = fit_strengths(wins.sum(0))
    assert [strengths[model]["strength"] for model in MODELS] == pytest.approx(expected.tolist())
    assert [strengths[model]["rank"] for model in MODELS] == [3, 2, 1]
    assert all(figures["low"] < figures["strength"] < figures["high"] for figures in strengths.values())


def test_groups_are_the_kinds_of_prompts_and_all_together(three):
    answers, comparisons = three
    groups = report(comparisons)["groups"]
    assert set(groups) == {"overall", "regulated", "kind:ordinary"}
    regulated = answers[answers["kind"] == "regulated"]
    figures = groups["regulated"]["win_rates"]["z"]["x"]
    assert figures["n"] == len(regulated)
    assert figures["win_rate"] == pytest.approx(naive_win_rate(regulated, "z", "x"))
