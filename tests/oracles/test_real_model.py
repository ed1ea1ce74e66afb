"""`local_lm` with the base model: its verdicts on real responses are those of one full pass each."""

from itertools import pairwise

import pytest
import torch
from base_model import ROOT, configured

from realignment.intake.readers import read_table
from realignment.oracles.loading import load_local_lm
from realignment.oracles.prompts import ONE_WORD, build_system_message, build_user_message
from realignment.parameters import LocalLMParameters
from realignment.policy import read_policy
from realignment.records import Exchange

pytestmark = pytest.mark.slow


def sample_exchanges(pairs):
    """Both responses of the first pairs of the embedded sample."""
    rows = read_table(str(ROOT / "data/01_raw/sample/pairs.jsonl")).head(pairs).to_dict("records")
    sides = ("chosen", "rejected")
    return [Exchange(row["prompt"], row[side], row["domain"]) for row in rows for side in sides]


@torch.no_grad()
def naive_probability(model, tokenizer, policy, exchange):
    """P(Yes) of Yes and No, by a pass over the whole request: no cache, every position, the whole head."""
    turns = [
        {"role": "system", "content": build_system_message(policy)},
        {"role": "user", "content": build_user_message(exchange, ONE_WORD)},
    ]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    yes, no = (tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in ("Yes", "No"))
    logits = model(input_ids=ids, use_cache=False).logits[0, -1]
    return float(logits[[yes, no]].softmax(0)[0])


def test_the_verdicts_of_the_base_model_are_those_of_a_full_pass_each(base_model):
    settings = LocalLMParameters(
        source=configured().source, folder=str(base_model.parent), dtype="float32", device="cpu"
    )
    oracle = load_local_lm(settings)
    policy, exchanges = read_policy(ROOT / "conf/base/policies/assistant-v2.yml"), sample_exchanges(pairs=6)
    judgments = oracle(exchanges, policy)
    expected = [naive_probability(oracle.model, oracle.tokenizer, policy, exchange) for exchange in exchanges]
    assert [judgment.complies for judgment in judgments] == [p >= 0.5 for p in expected]
    assert [judgment.confidence for judgment in judgments] == pytest.approx(
        [max(p, 1 - p) for p in expected], abs=5e-5
    )
    apart = sorted(expected)
    nearest = min(b - a for a, b in pairwise(apart))
    assert nearest > 1e-4, "too alike: the verdict on another exchange would not be noticed"
