"""A training step against TRL's and the published loop's: `python benchmarks/step.py [--json FILE]`.

From a tokenised batch of 8 pairs to the gradients of unweighted DPO, without the optimizer. TRL computes the
head for every position on a CPU; "response tokens alone" forces what it does on a GPU, so that it is not at a
disadvantage.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import cases
import ours
import peers
import trl_peer
from harness import Call, Claim, Row, alternate, evaluate_claims, parse_options, report

from realignment.likelihood.tokenization import TokenizedPair

SAME = {"loss": 1e-5, "gradient": 1e-4}
TRL, TRL_RESPONSES = "TRL, reference precomputed", "TRL, reference precomputed, response tokens alone"
TRL_ONLINE, TRL_DEFAULT = "TRL, reference in every step", "TRL, its defaults (the same and checkpointing)"
PUBLISHED, STATIC = "published loop", "static weights"
FRESH, FIXED = "fresh exact weights", "the same weights, static"
SKIPPED = "the same weights, static, pairs of weight zero left out"
RENEWAL = "the gold gradient"
GOLD, EVERY = 36, 20
"""Gold pairs of the embedded sample, and steps between two gold gradients."""
RENEWED = f"fresh exact weights, {GOLD} gold pairs every {EVERY} steps"
GOALS = {"PKU-like": 1.8, "long prompts": 3.0}
FRESH_GOALS = {"PKU-like": 1.6, "long prompts": 2.8}
OVERHEAD = {True: 1 / 1.05, False: 1 / 1.15}
"""Goals for online weights over the same static weights, by whether adapters are trained."""


@dataclass(frozen=True, slots=True)
class Case:
    """A batch and the model that is trained on it; `options` are those of `cases.random_model`."""

    pairs: list[TokenizedPair]
    size: str
    lora: bool
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> str:
        """Where the model is trained."""
        return str(self.options.get("device", "cpu"))


def build(case: Case, name: str) -> Call:
    """Build the step of the named side, with its own models."""
    policy = partial(cases.build_trainable_model, case.size, lora=case.lora, **case.options)
    if name in (FRESH, FIXED, SKIPPED, RENEWAL):
        model = policy(attention="sdpa")
        batch = ours.add_references(model, ours.build_preferences(case.pairs))
        gold = ours.build_preferences(
            cases.random_pairs(
                GOLD if name == RENEWAL else 4, cases.SHAPES[case.size][-1], cases.LENGTHS["PKU-like"], seed=2
            )
        )
        copied = None if case.lora else cases.random_model(case.size, attention="sdpa", **case.options)
        trainer = ours.build_trainer(model, batch, device=case.device, fixed_weights=name == SKIPPED)
        cases.perturb_parameters(model)
        ours.enable_online_weights(trainer, gold, reference_model=copied)
        if name == RENEWAL:
            return lambda: ours.renew_gold_gradient(trainer)
        if name in (FIXED, SKIPPED):
            batch = ours.add_weights(trainer, batch)
            trainer._online_weights = None
        return lambda: {"weighted gradient": ours.step(trainer, batch)["gradient"]}
    if name == STATIC:
        model = policy(attention="sdpa")
        batch = ours.add_references(model, ours.build_preferences(case.pairs))
        trainer = ours.build_trainer(model, batch, device=case.device)
        cases.perturb_parameters(model)
        return lambda: ours.step(trainer, batch)
    model = policy(attention="sdpa")
    needs_copy = name == PUBLISHED or not case.lora
    copy = cases.random_model(case.size, attention="sdpa", **case.options) if needs_copy else None
    if name == PUBLISHED:
        cases.perturb_parameters(model)
        return lambda: peers.published_step(model, copy, ours.build_preferences(case.pairs))
    trainer = trl_peer.build_trainer(
        model,
        case.pairs,
        precomputed=name in (TRL, TRL_RESPONSES),
        checkpointing=name == TRL_DEFAULT,
        reference_model=copy,
        device=case.device,
    )
    cases.perturb_parameters(model)
    rows = trl_peer.list_rows(trainer)
    return lambda: trl_peer.step(trainer, rows, only_responses=name == TRL_RESPONSES)


def compare(label: str, case: Case, names: list[str], goal: float | None, rounds: int) -> dict[str, Row]:
    """Compare our step with each of the named ones; the goal is for TRL's fastest set-up."""
    calls = {name: build(case, name) for name in [*names, STATIC]}
    costs, results = alternate(calls, rounds=rounds)
    claims = [
        Claim(f"{label}: static weights / {name}", name, STATIC, goal if name == TRL else None, SAME)
        for name in names
    ]
    return evaluate_claims(claims, costs, results)


def compare_fresh(label: str, case: Case, goal: float, rounds: int) -> dict[str, Row]:
    """Compare online weights with TRL, which has no weights, and with the same weights, static."""
    names = (TRL, FRESH, FIXED, SKIPPED, RENEWAL)
    costs, results = alternate({name: build(case, name) for name in names}, rounds=rounds)
    costs[RENEWED] = [step + once / EVERY for step, once in zip(costs[FRESH], costs[RENEWAL], strict=True)]
    results[RENEWED] = results[FRESH]
    # TRL has no weights: the results of online weights are compared with the same step and static weights.
    results[TRL] = results[FIXED]
    same = {"weighted gradient": 1e-4}
    overhead = OVERHEAD[case.lora]
    claims = [
        Claim(f"{label}: {FRESH} / {TRL}", TRL, FRESH, goal, same),
        Claim(f"{label}: {FRESH} / {FIXED}", FIXED, FRESH, overhead, same),
        Claim(f"{label}: {RENEWED} / {FIXED}", FIXED, RENEWED, None, same),
        Claim(f"{label}: {SKIPPED} / computed", FIXED, SKIPPED, None, same),
    ]
    return evaluate_claims(claims, costs, results)


def main() -> int:
    """Parse the options, measure, and report the rows."""
    size = {"default": "t17", "choices": sorted(cases.SHAPES), "help": "shape of the random model"}
    options = parse_options(__doc__, size=size)
    size, count = ("tiny", 6) if options.quick else (options.size, 8)
    vocabulary, every = cases.SHAPES[size][-1], [TRL, TRL_RESPONSES, TRL_ONLINE, TRL_DEFAULT, PUBLISHED]
    rows: dict[str, Row] = {}
    for regime, lengths in cases.LENGTHS.items():
        pairs = cases.random_pairs(count, vocabulary, lengths, seed=1)
        case = Case(pairs, size, lora=True)
        rows |= compare(f"{regime}, LoRA", case, every, GOALS[regime], options.rounds)
        rows |= compare_fresh(f"{regime}, LoRA", case, FRESH_GOALS[regime], options.rounds)
    pairs = cases.random_pairs(count, vocabulary, cases.LENGTHS["PKU-like"], seed=1)
    case = Case(pairs, size, lora=False)
    rows |= compare("PKU-like, all parameters", case, [TRL, TRL_RESPONSES], GOALS["PKU-like"], options.rounds)
    rows |= compare_fresh("PKU-like, all parameters", case, FRESH_GOALS["PKU-like"], options.rounds)
    real = cases.real_pairs(count, vocabulary, seed=1)
    if real is not None:
        case = Case(real, size, lora=True)
        rows |= compare("real lengths, LoRA", case, [TRL, TRL_RESPONSES], None, options.rounds)
    return report(rows, options)


if __name__ == "__main__":
    sys.exit(main())
