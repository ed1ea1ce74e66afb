import naive
import pandas as pd
import pytest
import torch
from tiny_decoders import tiny_examples, tiny_model, with_lora

from realignment.impact.scoring import compute_gold_gradient, score_conflicts, score_references
from realignment.impact.weights import attach_weights, report_weights
from realignment.likelihood.packing import Layout
from realignment.objective.hybrid import Objective, Treatment

PREFER, CORRECT, SUPPRESS = Treatment.PREFER, Treatment.CORRECT, Treatment.SUPPRESS
OBJECTIVE = Objective(beta=0.3, invert="ipo", suppress="npo_paper", anchor_weight=0.1)
CONFLICTS = tiny_examples([PREFER, SUPPRESS, CORRECT, PREFER, SUPPRESS, CORRECT], seed=2)
GOLD = tiny_examples([PREFER] * 5, seed=7)
COMMON = {"layout": Layout(0), "progress": None}


@pytest.fixture(scope="module")
def model():
    return with_lora(tiny_model())


@pytest.fixture(scope="module")
def direction(model):
    return compute_gold_gradient(model, GOLD, OBJECTIVE, layout=Layout(0), token_budget=40)


def score(model, direction, *, token_budget=60, length_normalize=False, conflicts=CONFLICTS):
    return score_conflicts(
        model,
        conflicts,
        direction,
        OBJECTIVE,
        token_budget=token_budget,
        length_normalize=length_normalize,
        **COMMON,
    )


def test_the_gold_loss_is_dpo_whatever_the_training_loss(model, direction):
    torch.testing.assert_close(direction, naive.gold_gradient(model, GOLD, Objective(beta=0.3)))


def test_scores_and_references_of_mixed_treatments_match_one_backward_per_pair_in_the_given_order(
    model, direction
):
    results = score(model, direction)
    expected = naive.impact_scores(model, CONFLICTS, OBJECTIVE, direction)
    assert [value for value, _ in results] == pytest.approx(expected.tolist())
    for (_, reference), example in zip(results, CONFLICTS, strict=True):
        plain = [float(value.detach()) for value in naive.log_probabilities(model, example.tokens)]
        assert reference == pytest.approx(plain)


@pytest.mark.parametrize("token_budget", [1, 45, 10_000])
def test_the_token_budget_changes_no_score(model, direction, token_budget):
    results, base = score(model, direction, token_budget=token_budget), score(model, direction)
    assert [value for value, _ in results] == pytest.approx([value for value, _ in base])


def test_length_normalised_scores_are_per_response_token(model, direction):
    normalised, plain = score(model, direction, length_normalize=True), score(model, direction)
    for (per_token, _), (whole, _), example in zip(normalised, plain, CONFLICTS, strict=True):
        assert per_token * sum(map(len, example.tokens.responses)) == pytest.approx(whole)


def test_weighing_gives_each_example_its_weight_and_its_reference():
    conflicts = [CONFLICTS[0], CONFLICTS[3], CONFLICTS[2]]
    scored = [(2.0, (-1.0, -2.0)), (6.0, (-3.0, -4.0)), (-1.0, (-5.0, -6.0, -7.0))]
    weighted = attach_weights(conflicts, scored, normalize="mean_one", winsorize=None)
    assert [example.weight for example in weighted] == pytest.approx([0.5, 1.5, 0.0])
    assert [example.reference for example in weighted] == [reference for _, reference in scored]
    assert [example.tokens for example in weighted] == [example.tokens for example in conflicts]


def test_references_without_scores_are_those_of_the_pass_that_scores(model, direction):
    references = score_references(model, CONFLICTS, layout=Layout(0), token_budget=60)
    for reference, (_, expected) in zip(references, score(model, direction), strict=True):
        assert reference == pytest.approx(expected)


@pytest.mark.parametrize("error_rate", [0.0, 0.2, 0.4])
def test_the_robust_losss_scores_are_those_of_labels_without_errors(model, direction, error_rate):
    """1/(1 − 2ε) is in the robust loss already: in the scores too, it would count twice."""
    conflicts = tiny_examples([PREFER] * 3, seed=4)
    options = {"token_budget": 60, "length_normalize": False, **COMMON}
    robust = Objective(beta=0.3, invert="robust", error_rate=error_rate)
    scores = [s for s, _ in score_conflicts(model, conflicts, direction, robust, **options)]
    expected = naive.impact_scores(model, conflicts, Objective(beta=0.3), direction)
    assert scores == pytest.approx(expected.tolist())


def test_the_report_counts_signs_and_says_how_many_pairs_carry_the_weight():
    table = pd.DataFrame(
        {
            "disposition": ["INVERT"] * 4 + ["PUNISH"] * 2,
            "score": [1.0, 3.0, -2.0, 0.0, -1.0, -1.0],
            "weight": [1.0, 3.0, 0.0, 0.0, 0.0, 0.0],
        }
    )
    report = report_weights(table)
    assert report["INVERT"] == {
        "n": 4, "positive": 2, "negative": 1, "zero": 1, "mean_score": 0.5, "median_score": 0.5,
        "max_weight": 3.0, "effective_sample_size": pytest.approx(16 / 10),
    }  # fmt: skip
    assert report["PUNISH"]["effective_sample_size"] == 0.0
