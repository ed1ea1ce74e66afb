"""Whether impact scores rank conflicts by the gain of training on them: `python benchmarks/marginal_gain.py`.

For every conflict, one small step on its own loss is made from θ_ref. The gain is the decrease of the gold
loss; it is compared with the score under each curvature by Spearman's ρ, with a bootstrap interval over
conflicts. There are two kinds of steps: along the gradient, for which the identity's score is the first-order
gain by definition, and Adam's first step, which changes every parameter equally and is closer to training.
`--page` puts the figures into docs/results/marginal-gain.md.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}

import cases
import numpy as np
import torch
import yaml
from harness import describe_machine, silence_libraries
from scipy.stats import spearmanr
from torch import Tensor

from realignment import intake, judging, triage
from realignment.gold.batch import partition_pairs
from realignment.impact.ghost import Gradient
from realignment.impact.scoring import compute_gold_gradient, precondition
from realignment.intake.readers import read_table
from realignment.likelihood.backbone import scoring_mode
from realignment.likelihood.log_probs import response_log_probabilities
from realignment.likelihood.packing import Rows
from realignment.objective import examples
from realignment.objective.hybrid import Example, Objective, Treatment, pair_losses
from realignment.oracles.rules import RulesOracle
from realignment.parameters import LossParameters, TrainingParameters
from realignment.parameters.base import ModelParameters
from realignment.policy import read_policy
from realignment.records import CONFLICTS
from realignment.training.setup import TrainingSetup, load_training_setup

ROOT = cases.ROOT
PAGE = ROOT / "docs/results/marginal-gain.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
SEED, RESAMPLES = 20251, 2000
CURVATURES = ("identity", "diagonal_fisher", "kfac")
GRADIENT, ADAM = "along the gradient", "Adam's first"
LONGEST_STEP = 0.1
"""‖Δθ‖ of the longest step along a gradient; the others are proportional to their gradients."""
LEARNING_RATE = 1e-4
"""Change of each parameter in Adam's step."""


def open_setup(max_response_tokens: int) -> TrainingSetup:
    """Load the base model in float32 with the project's own loss and adapter, at θ_ref."""
    configured = yaml.safe_load((ROOT / "conf/base/parameters_training.yml").read_text(encoding="utf-8"))
    folder = sorted(cases.BASE_MODELS.glob("*/config.json"))[0].parent
    model = ModelParameters(source=str(folder), folder=str(folder), dtype="float32", device="cpu")
    settings = configured["training"] | {"max_response_tokens": max_response_tokens}
    loss = LossParameters(**configured["loss"])
    return load_training_setup(str(folder), model, TrainingParameters(**settings), loss, seed=SEED)


def sample_pairs(setup: TrainingSetup, conflicts: int, size: int) -> tuple[list[Example], list[Example]]:
    """Return conflicts of the embedded sample, judged by the rules, and its gold batch."""
    raw = read_table(str(ROOT / "data/01_raw/sample/pairs.jsonl"))
    pairs = intake.clean_pairs(raw, invalid="skip", max_prompt_chars=8000, long_prompts="drop").pairs
    policy = read_policy(ROOT / "conf/base/policies/assistant-v2.yml")
    triaged = triage.triage(pairs, judging.judge_pairs(pairs, policy, RulesOracle()), min_confidence=0.5)
    decided = triaged[triaged["disposition"] != "REVIEW"]
    # `retained`: the gold batch of docs/results/marginal-gain.md.
    parts = partition_pairs(
        decided, held_out_share=0.1, gold_size=size, composition="random", seed=SEED, retained="all"
    )
    candidates = parts.training[parts.training["disposition"].isin(CONFLICTS)]
    sample = candidates.sample(conflicts, random_state=SEED)
    limit = setup.training.max_response_tokens
    return setup.build_examples(sample), examples.build_gold_examples(
        parts.gold, setup.tokenizer, max_response_tokens=limit
    )


def build_gold_loss(setup: TrainingSetup, rows: Rows) -> Callable[[], float]:
    """Return J(θ) with the current parameters as reference, in float64 from the log-probabilities on."""

    @torch.no_grad()
    def logprobs() -> Tensor:
        with scoring_mode(setup.model):
            return response_log_probabilities(setup.model, rows).double()

    reference = logprobs()
    objective = Objective(beta=setup.objective.beta)
    kinds = torch.full_like(rows.first, int(Treatment.PREFER))
    return lambda: float(pair_losses(logprobs(), reference, rows, kinds, objective).mean())


def compute_gradient(setup: TrainingSetup, example: Example) -> Gradient:
    """Compute ∇_θ ℓ_i at θ_ref; parameters whose gradient is zero are left out."""
    rows = setup.layout([example.tokens])
    with scoring_mode(setup.model):
        logprobs = response_log_probabilities(setup.model, rows)
        kinds = torch.tensor([int(example.treatment)])
        loss = pair_losses(logprobs, logprobs.detach(), rows, kinds, setup.objective).sum()
    named = {name: p for name, p in setup.model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: g for name, g in zip(named, gradients, strict=True) if g is not None and bool(g.any())}


@torch.no_grad()
def compute_loss_after(setup: TrainingSetup, loss: Callable[[], float], step: Gradient) -> float:
    """Compute J(θ_ref + step), and restore the parameters."""
    named = dict(setup.model.named_parameters())
    originals = {name: named[name].clone() for name in step}
    for name, change in step.items():
        named[name].add_(change)
    value = loss()
    for name, original in originals.items():
        named[name].copy_(original)
    return value


def compute_directions(
    setup: TrainingSetup, batch: Sequence[Example], gold_batch: Sequence[Example]
) -> dict[str, Gradient]:
    """Compute H⁻¹ g_J for every curvature, estimated on the conflicts themselves."""
    common: dict[str, Any] = {"layout": setup.layout, "token_budget": 1024}
    plain = compute_gold_gradient(setup.model, gold_batch, setup.objective, **common)
    return {
        name: precondition(setup.model, plain, batch, curvature=name, damping=0.1, seed=SEED, **common)
        for name in CURVATURES
    }


def measure(conflicts: int, size: int, max_response_tokens: int) -> dict[str, Any]:
    """Measure scores and gains of every conflict."""
    start = time.perf_counter()
    setup = open_setup(max_response_tokens)
    batch, gold_batch = sample_pairs(setup, conflicts, size)
    directions = compute_directions(setup, batch, gold_batch)
    gradients = [compute_gradient(setup, example) for example in batch]
    loss = build_gold_loss(setup, setup.layout([e.tokens for e in gold_batch]))
    norms = [
        float(torch.stack([(g**2).sum() for g in gradient.values()]).sum().sqrt()) for gradient in gradients
    ]
    rate = LONGEST_STEP / max(norms)
    before = loss()
    steps: dict[str, Callable[[Tensor], Tensor]] = {
        GRADIENT: lambda g: -rate * g,
        ADAM: lambda g: -LEARNING_RATE * g / (g.abs() + 1e-8),
    }
    return {
        "treatments": [example.treatment.name for example in batch],
        "scores": {
            name: [inner_product(direction, gradient) for gradient in gradients]
            for name, direction in directions.items()
        },
        "gains": {
            kind: [
                before - compute_loss_after(setup, loss, {key: step(g) for key, g in gradient.items()})
                for gradient in gradients
            ]
            for kind, step in steps.items()
        },
        "settings": {"conflicts": conflicts, "gold": size, "response tokens": max_response_tokens},
        "seconds": time.perf_counter() - start,
    }


def inner_product(direction: Gradient, gradient: Gradient) -> float:
    """Return ⟨direction, gradient⟩ over the parameters of the gradient."""
    return float(sum((direction[key] * g).sum() for key, g in gradient.items()))


def correlation(scores: Sequence[float], gains: Sequence[float], rival: Sequence[float]) -> dict[str, Any]:
    """Correlate scores with gains, by a bootstrap over conflicts.

    Args:
        scores: Score of each conflict.
        gains: Gain of each conflict.
        rival: Other scores, to compare with.

    Returns:
        Spearman's ρ, its 95 % interval, and the interval of its difference from the rival's.
    """
    columns = np.array([scores, rival, gains])
    rng = np.random.default_rng(SEED)

    def correlate_both(sample: Any) -> tuple[float, float]:
        x, y, z = columns[:, sample]
        return float(spearmanr(x, z).statistic), float(spearmanr(y, z).statistic)

    count = len(gains)
    drawn = np.array([correlate_both(rng.integers(count, size=count)) for _ in range(RESAMPLES)])
    low, high = np.nanquantile(drawn[:, 0], [0.025, 0.975])
    less, more = np.nanquantile(drawn[:, 0] - drawn[:, 1], [0.025, 0.975])
    return {
        "n": count,
        "rho": correlate_both(slice(None))[0],
        "interval": [low, high],
        "difference": [less, more],
    }


def compute_correlations(measured: dict[str, Any]) -> dict[str, Any]:
    """Correlate scores and gains for every step, set of conflicts and curvature."""
    kinds = np.array(measured["treatments"])
    sets = {"all": kinds != "", "INVERT": kinds == "PREFER", "PUNISH": kinds != "PREFER"}
    scores = {curvature: np.array(values) for curvature, values in measured["scores"].items()}
    rows = {}
    for step, gains in measured["gains"].items():
        for name, members in sets.items():
            for curvature in CURVATURES:
                rows[f"{step} | {name} | {curvature}"] = correlation(
                    scores[curvature][members], np.array(gains)[members], scores["identity"][members]
                )
    return rows


def format_table(measured: dict[str, Any], rows: dict[str, Any]) -> str:
    """Format the correlations in Markdown."""
    settings = ", ".join(f"{value} {name}" for name, value in measured["settings"].items())
    lines = [
        f"{settings}; {measured['seconds']:.0f} s on {describe_machine()}.",
        "",
        "| step | conflicts | curvature | n | ρ (95 %) | ρ − ρ of the identity (95 %) |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        interval = "{:.2f} to {:.2f}".format(*row["interval"])
        difference = "" if name.endswith("identity") else "{:+.2f} to {:+.2f}".format(*row["difference"])
        lines.append(f"| {name} | {row['n']} | {row['rho']:.2f} ({interval}) | {difference} |")
    return "\n".join(lines)


def main() -> None:
    """Parse the options, measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=32, help="conflicts")
    parser.add_argument("--gold", type=int, default=9, help="gold pairs")
    parser.add_argument("--tokens", type=int, default=32, help="where a response is cut")
    parser.add_argument("--page", action="store_true", help=f"put the figures into {PAGE.relative_to(ROOT)}")
    parser.add_argument("--json", type=Path, help="write scores, gains and correlations to this file")
    options = parser.parse_args()
    silence_libraries()
    measured = measure(options.pairs, options.gold, options.tokens)
    rows = compute_correlations(measured)
    figures = format_table(measured, rows)
    print(figures)
    if options.json is not None:
        options.json.write_text(json.dumps(measured | {"correlations": rows}, indent=2), encoding="utf-8")
    if options.page:
        head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n\n{figures}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
