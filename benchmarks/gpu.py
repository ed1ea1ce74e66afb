"""Weights and step of an 8B model in bf16 with LoRA on one GPU: `python benchmarks/gpu.py [--json FILE]`.

Llama-3.1-8B's architecture with random weights, PKU-like pairs. Model FLOPs of a LoRA step are 4 · (weights
of the layers · tokens + d · V · response tokens): forward and backward of the activations, 2 each, of every
token once (a prompt counts once for both responses); attention, adapters and recomputation are not counted.
`--device cpu --size tiny` runs the same code without a GPU; its figures mean nothing.
"""

import argparse
import sys
from functools import partial

import cases
import ours
import peers
import step
import torch
from harness import Call, Claim, Row, alternate, evaluate_claims, measure_peaks, parse_options, report

from realignment.likelihood.tokenization import TokenizedPair

SAME_IN_BF16 = {"loss": 1e-2, "gradient": 0.1}
SCORES_IN_BF16 = {"scores": 0.1}
OURS, PUBLISHED = "ours", "published loop"
STEP_GOALS = {step.TRL: 1.6, step.TRL_DEFAULT: 2.2}
PAIRS_PER_SECOND, MFU = 60, 0.55


def model_flops(pairs: list[TokenizedPair], size: str) -> float:
    """Return the model FLOPs of one LoRA step over the pairs."""
    width, mlp, layers, heads, groups, vocabulary = cases.SHAPES[size]
    weights = layers * (2 * width * width + 2 * width * groups * width // heads + 3 * width * mlp)
    responses = sum(len(response) for pair in pairs for response in pair.responses)
    return 4.0 * (weights * sum(map(len, pairs)) + width * vocabulary * responses)


def build_impact(pairs: list[TokenizedPair], size: str, model_options: dict) -> dict[str, Call]:
    """Build the calls that compute weights (and references) of the pairs, ours and the published one."""
    model = cases.build_trainable_model(size, lora=True, attention="sdpa", **model_options)
    plain = cases.build_trainable_model(size, lora=True, attention="sdpa", **model_options)
    copy = cases.random_model(size, attention="sdpa", **model_options)
    conflicts = ours.build_conflicts(pairs)
    direction = ours.compute_batch_gold_gradient(model, ours.build_preferences(pairs[:4]))
    return {
        PUBLISHED: lambda: peers.published_scores(plain, copy, conflicts, direction),
        OURS: lambda: ours.compute_scores_and_references(model, conflicts, direction),
    }


def compare_impact(pairs: list[TokenizedPair], size: str, model_options: dict, rounds: int) -> dict[str, Row]:
    """Compare impact weights with the published loop, and with a rate."""
    calls = build_impact(pairs, size, model_options)
    costs, results = alternate(calls, rounds=rounds, device=model_options["device"])
    rate = f"{PAIRS_PER_SECOND} pairs/s"
    costs[rate] = [len(pairs) / PAIRS_PER_SECOND] * rounds
    claims = [
        Claim(f"weights and references / {PUBLISHED}, weights alone", PUBLISHED, OURS, 15.0, SCORES_IN_BF16),
        Claim(f"weights and references / {rate}", rate, OURS, 1.0),
    ]
    return evaluate_claims(claims, costs, results | {rate: {}})


def compare_step(case: step.Case, rounds: int, peak_flops: float) -> dict[str, Row]:
    """Compare a step with TRL, the published loop and the hardware's peak, in time and memory."""
    names = (step.TRL, step.TRL_DEFAULT, step.PUBLISHED, step.STATIC)
    build = partial(step.build, case)
    costs, results = alternate({name: build(name) for name in names}, rounds=rounds, device=case.device)
    roof = f"{peak_flops / 1e12:.0f} TFLOP/s (MFU)"
    costs[roof] = [model_flops(case.pairs, case.size) / peak_flops] * rounds
    claims = [
        Claim(f"step / {name}", name, step.STATIC, STEP_GOALS.get(name), SAME_IN_BF16) for name in names[:-1]
    ]
    claims.append(Claim(f"step / {roof}", roof, step.STATIC, MFU))
    rows = evaluate_claims(claims, costs, results | {roof: {}})
    torch.cuda.empty_cache()
    memory, results = measure_peaks(build, (step.TRL, step.STATIC), case.device)
    claim = Claim(f"memory of a step / {step.TRL}", step.TRL, step.STATIC, None, SAME_IN_BF16)
    return rows | evaluate_claims([claim], memory, results, unit="MiB")


def main() -> int:
    """Parse the options, measure, and report the rows."""
    options = parse_options(
        __doc__,
        size={"default": "8b", "choices": sorted(cases.SHAPES), "help": "shape of the random model"},
        device={"default": "cuda", "choices": ["cpu", "cuda"], "help": "where to run"},
        pairs={"type": int, "default": 16, "help": "pairs of a step"},
        peak={"type": float, "default": 989.0, "help": "dense bf16 TFLOP/s of the GPU (H100 SXM: 989)"},
    )
    if options.quick:
        options = argparse.Namespace(**vars(options) | {"size": "tiny", "device": "cpu", "pairs": 4})
    dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    model_options = {"device": options.device, "dtype": dtype}
    pairs = cases.random_pairs(
        options.pairs, cases.SHAPES[options.size][-1], cases.LENGTHS["PKU-like"], seed=1
    )
    rows = compare_impact(pairs, options.size, model_options, options.rounds)
    case = step.Case(pairs, options.size, lora=True, options=model_options)
    rows |= compare_step(case, options.rounds, options.peak * 1e12)
    print(f"{sum(map(len, pairs))} tokens, {len(pairs)} pairs a step\n")
    return report(rows, options)


if __name__ == "__main__":
    sys.exit(main())
