"""Verdicts of a language model with prefix caching of the policy: `python benchmarks/judge.py [--json FILE]`.

64 responses under a policy of 700 tokens, each with about 80 further tokens. The peer sends one full request
at a time, as a client of an API does, without the network. Texts and weights are random; compared are the
logits of the two answers.
"""

import random
import sys
from collections.abc import Sequence

import cases
import torch
from harness import Call, Claim, Result, alternate, evaluate_claims, parse_options, report
from trl_peer import word_tokenizer

from realignment.oracles.local_lm import LocalLMOracle
from realignment.oracles.questions import Question
from realignment.policy import Policy
from realignment.records import Exchange, Judgment

OURS, PEER = "policy computed once", "one full request at a time"
COMPLIES, VIOLATES = "w3", "w4"
TOKEN_BUDGET = 1024  # the default on a CPU


def render(policy: Policy, exchange: Exchange) -> str:
    """Write the request: policy, prompt, response."""
    return f"{policy.text} {exchange.prompt} {exchange.response} "


def words(count: int, vocabulary: int, draw: random.Random) -> str:
    """Draw random words, one token each."""
    return " ".join(f"w{draw.randrange(5, vocabulary)}" for _ in range(count))


def log_odds(judgments: Sequence[Judgment]) -> torch.Tensor:
    """Return the log-odds of compliance: the difference of the two answers' logits."""
    complies = torch.tensor([bool(j.complies) for j in judgments])
    confidence = torch.tensor([j.confidence for j in judgments], dtype=torch.float64)
    return torch.logit(torch.where(complies, confidence, 1 - confidence))


def build(size: str, policy_tokens: int, count: int) -> dict[str, Call]:
    """Build the calls of both methods, which compute the same verdicts."""
    vocabulary = cases.SHAPES[size][-1]
    draw = random.Random(0)
    tokenizer = word_tokenizer(vocabulary)
    model = cases.random_model(size, attention="sdpa")
    question = Question(render, COMPLIES, VIOLATES, digest="benchmark")
    oracle = LocalLMOracle(
        model, tokenizer, question, name="ours", identity="ours", token_budget=TOKEN_BUDGET
    )
    policy = Policy(name="policy", version="1", text=words(policy_tokens, vocabulary, draw))
    exchanges = [
        Exchange(words(draw.randint(10, 40), vocabulary, draw), words(draw.randint(40, 70), vocabulary, draw))
        for _ in range(count)
    ]
    requests = tokenizer([render(policy, exchange) for exchange in exchanges])["input_ids"]
    answers = tokenizer(f"{COMPLIES} {VIOLATES}")["input_ids"]

    def ours() -> Result:
        return {"log odds": [log_odds(oracle(exchanges, policy))]}

    @torch.inference_mode()
    def one_at_a_time() -> Result:
        logits = [model(input_ids=torch.tensor([ids]), logits_to_keep=1).logits[0, -1] for ids in requests]
        complies, violates = torch.stack(logits)[:, answers].unbind(1)
        return {"log odds": [complies - violates]}

    return {PEER: one_at_a_time, OURS: ours}


def main() -> int:
    """Parse the options, measure, and report the rows."""
    options = parse_options(__doc__)
    size, policy_tokens, count = ("tiny", 100, 6) if options.quick else ("t17", 700, 64)
    costs, results = alternate(build(size, policy_tokens, count), rounds=options.rounds)
    claim = Claim(f"{OURS} / {PEER}", PEER, OURS, 8.0, {"log odds": 1e-4})
    return report(evaluate_claims([claim], costs, results), options)


if __name__ == "__main__":
    sys.exit(main())
