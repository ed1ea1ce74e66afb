"""Impact weights and reference log-probabilities of a data set: `python benchmarks/impact.py [--json FILE]`.

Ours computes both in one pass. The published loop computes the weights alone, TRL's precomputation the
reference log-probabilities alone; the loop over pairs and `vmap(grad)` are the textbook methods for weights.
"""

import sys

import cases
import ours
import peers
import trl_peer
from harness import Call, Claim, Row, alternate, evaluate_claims, parse_options, report

from realignment.likelihood.tokenization import TokenizedPair

OURS, PUBLISHED, PER_SAMPLE = "ours", "published loop, weights alone", "a backward per pair, weights alone"
VMAP = "`vmap(grad)`, weights alone"
TRL, TRL_RESPONSES = "TRL, references alone", "TRL, references alone, response tokens alone"
PEERS = {
    PUBLISHED: "scores",
    PER_SAMPLE: "scores",
    VMAP: "scores",
    TRL: "references",
    TRL_RESPONSES: "references",
}
GOALS = {("PKU-like", PUBLISHED): 3.6, ("PKU-like", TRL): 1.0, ("long prompts", TRL): 1 / 0.7}
"""Goals for LoRA. Against TRL: at most 1.0 times its time, and 0.7 times."""


def build(pairs: list[TokenizedPair], gold: list[TokenizedPair], size: str, *, lora: bool) -> dict[str, Call]:
    """Build the call of every side, at the reference, with one gold gradient."""
    model = cases.build_trainable_model(size, lora=lora, attention="sdpa")
    plain = cases.build_trainable_model(size, lora=lora, attention="sdpa")
    copy = cases.random_model(size, attention="sdpa")
    conflicts = ours.build_conflicts(pairs)
    direction = ours.compute_batch_gold_gradient(model, ours.build_preferences(gold))
    trainer = trl_peer.build_trainer(
        cases.build_trainable_model(size, lora=lora, attention="sdpa"),
        pairs,
        precomputed=False,
        reference_model=None if lora else cases.random_model(size, attention="sdpa"),
    )
    rows = trl_peer.list_rows(trainer)
    return {
        OURS: lambda: ours.compute_scores_and_references(model, conflicts, direction),
        PUBLISHED: lambda: peers.published_scores(plain, copy, conflicts, direction),
        PER_SAMPLE: lambda: peers.per_sample_scores(plain, conflicts, direction),
        VMAP: lambda: peers.vmap_scores(plain, conflicts, direction),
        TRL: lambda: trl_peer.compute_references(trainer, rows),
        TRL_RESPONSES: lambda: trl_peer.compute_references(trainer, rows, only_responses=True),
    }


def compare(regime: str, size: str, count: int, rounds: int, *, lora: bool) -> dict[str, Row]:
    """Compare all sides on one kind of pairs."""
    vocabulary, lengths = cases.SHAPES[size][-1], cases.LENGTHS[regime]
    pairs = cases.random_pairs(count, vocabulary, lengths, seed=1)
    gold = cases.random_pairs(4, vocabulary, lengths, seed=2)
    costs, results = alternate(build(pairs, gold, size, lora=lora), rounds=rounds)
    label = f"{regime}, {'LoRA' if lora else 'all parameters'}"
    claims = [
        Claim(f"{label}: {name}", name, OURS, GOALS.get((regime, name)) if lora else None, {result: 1e-4})
        for name, result in PEERS.items()
    ]
    return evaluate_claims(claims, costs, results)


def main() -> int:
    """Parse the options, measure, and report the rows."""
    size = {"default": "t17", "choices": sorted(cases.SHAPES), "help": "shape of the random model"}
    options = parse_options(__doc__, size=size)
    size, count = ("tiny", 4) if options.quick else (options.size, 16)
    rows: dict[str, Row] = {}
    for regime, lora in (("PKU-like", True), ("long prompts", True), ("PKU-like", False)):
        rows |= compare(regime, size, count, options.rounds, lora=lora)
    return report(rows, options)


if __name__ == "__main__":
    sys.exit(main())
