"""Log-probabilities and KL of given responses, against one response at a time over full logits."""

import pandas as pd
import pytest
import torch
from tiny_models import load_model, save_model

from realignment.evaluation.teacher_forced import preference_order, score_pairs
from realignment.likelihood.packing import Layout
from realignment.likelihood.tokenization import TokenizedPair

PAIRS = [
    TokenizedPair([5, 6, 7], ([8, 9, 0], [10, 0])),
    TokenizedPair([11], ([12, 13, 14, 15, 0], [16, 0], [17, 18, 0])),
    TokenizedPair([20, 21, 22, 23], ([24, 0],)),
]


@pytest.fixture(scope="module")
def two_models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [load_model(save_model(folder / str(seed), seed=seed))[0] for seed in (1, 2)]


def naive_score(model, reference, prompt, response):
    """log π, log π_ref (nats, summed) and mean token KL(ref ‖ model) of one response alone."""
    ids = torch.tensor([prompt + response])
    with torch.no_grad():
        log_q, log_p = (m(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1) for m in (model, reference))
    target = torch.tensor(response)[:, None]
    kl = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    return [float(x) for x in (log_q.gather(1, target).sum(), log_p.gather(1, target).sum(), kl)]


def score(model, reference, pairs=PAIRS, budget=2048):
    return score_pairs(model, reference, pairs, layout=Layout(0), token_budget=budget, progress=None)


def test_scores_match_one_response_at_a_time(two_models):
    expected = []
    for index, pair in enumerate(PAIRS):
        for slot, response in enumerate(pair.responses):
            expected.append([index, slot, len(response), *naive_score(*two_models, pair.prompt, response)])
    columns = ["pair", "slot", "tokens", "logprob", "reference_logprob", "kl"]
    pd.testing.assert_frame_equal(score(*two_models), pd.DataFrame(expected, columns=columns), rtol=1e-8)


@pytest.mark.parametrize("budget", [1, 12, 25])
def test_the_batch_size_does_not_matter(two_models, budget):
    pd.testing.assert_frame_equal(score(*two_models, budget=budget), score(*two_models), rtol=1e-9)


def test_a_model_does_not_drift_from_itself(two_models):
    scores = score(two_models[0], two_models[0])
    assert (scores["logprob"] == scores["reference_logprob"]).all()
    assert scores["kl"].abs().max() < 1e-12


def test_two_models_drift_apart(two_models):
    assert (score(*two_models)["kl"] > 0.01).all()


def test_no_pairs_are_no_scores(two_models):
    scores = score(*two_models, pairs=[])
    assert scores.empty
    assert list(scores.columns) == ["pair", "slot", "tokens", "logprob", "reference_logprob", "kl"]


@pytest.mark.parametrize(
    ("disposition", "has_correction", "order"),
    [
        ("INVERT", False, ("rejected", "chosen")),
        ("INVERT", True, ("rejected", "chosen")),
        ("PUNISH", True, ("correction", "chosen")),
        ("PUNISH", False, None),
        ("RETAIN", True, None),
        ("REVIEW", False, None),
    ],
)
def test_what_the_new_policy_prefers(disposition, has_correction, order):
    assert preference_order(disposition, has_correction) == order
