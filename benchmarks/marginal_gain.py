"""Do impact scores rank conflicts by what training on them gains? `python benchmarks/marginal_gain.py`.

For every conflict one small step on its own loss, from θ_ref, and the fall of the gold loss that follows,
against its score under each curvature: Spearman's ρ with a bootstrap interval over conflicts. Two kinds of
steps: along the gradient, for which the identity's score is the first-order gain by definition, and Adam's
first step, which moves every parameter equally far and is closer to what training does. `--page` puts the
figures into docs/results/marginal-gain.md.
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
from harness import machine, quiet
from scipy.stats import spearmanr
from torch import Tensor

from realignment import intake, judging, triage
from realignment.gold.batch import partition
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
from realignment.training.setup import Workbench, open_workbench

ROOT = cases.ROOT
PAGE = ROOT / "docs/results/marginal-gain.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
SEED, RESAMPLES = 20251, 2000
CURVATURES = ("identity", "diagonal_fisher", "kfac")
GRADIENT, ADAM = "along the gradient", "Adam's first"
LONGEST_STEP = 0.1
"""‖Δθ‖ of the longest step along a gradient; the others are as much shorter as their gradients are."""
LEARNING_RATE = 1e-4
"""Of Adam's step: how far each parameter moves."""


def open_bench(max_response_tokens: int) -> Workbench:
    """The base model in float32 with the project's own loss and adapter, at θ_ref."""
    configured = yaml.safe_load((ROOT / "conf/base/parameters_training.yml").read_text(encoding="utf-8"))
    folder = sorted(cases.BASE_MODELS.glob("*/config.json"))[0].parent
    model = ModelParameters(source=str(folder), folder=str(folder), dtype="float32", device="cpu")
    settings = configured["training"] | {"max_response_tokens": max_response_tokens}
    loss = LossParameters(**configured["loss"])
    return open_workbench(str(folder), model, TrainingParameters(**settings), loss, seed=SEED)


def sample_pairs(bench: Workbench, conflicts: int, size: int) -> tuple[list[Example], list[Example]]:
    """Conflicts of the embedded sample, judged by the rules, and its gold batch."""
    raw = read_table(str(ROOT / "data/01_raw/sample/pairs.jsonl"))
    pairs = intake.clean_pairs(raw, invalid="skip", max_prompt_chars=8000, long_prompts="drop").pairs
    policy = read_policy(ROOT / "conf/base/policies/assistant-v2.yml")
    triaged = triage.triage(pairs, judging.judge_pairs(pairs, policy, RulesOracle()), min_confidence=0.5)
    known = triaged[triaged["disposition"] != "REVIEW"]
    parts = partition(known, held_out_share=0.1, gold_size=size, composition="random", seed=SEED)
    found = parts.training[parts.training["disposition"].isin(CONFLICTS)].sample(conflicts, random_state=SEED)
    limit = bench.training.max_response_tokens
    return bench.build(found), examples.build_gold_examples(
        parts.gold, bench.tokenizer, max_response_tokens=limit
    )


def gold_loss(bench: Workbench, rows: Rows) -> Callable[[], float]:
    """J(θ) against the references of now, in float64 from the responses' log-probabilities on."""

    @torch.no_grad()
    def logprobs() -> Tensor:
        with scoring_mode(bench.model):
            return response_log_probabilities(bench.model, rows).double()

    reference, objective = logprobs(), Objective(beta=bench.objective.beta)
    kinds = torch.full_like(rows.first, int(Treatment.PREFER))
    return lambda: float(pair_losses(logprobs(), reference, rows, kinds, objective).mean())


def gradient_of(bench: Workbench, example: Example) -> Gradient:
    """∇_θ ℓ_i at θ_ref; parameters on which it vanishes are left out."""
    rows = bench.layout([example.tokens])
    with scoring_mode(bench.model):
        logprobs = response_log_probabilities(bench.model, rows)
        kinds = torch.tensor([int(example.treatment)])
        loss = pair_losses(logprobs, logprobs.detach(), rows, kinds, bench.objective).sum()
    named = {name: p for name, p in bench.model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: g for name, g in zip(named, found, strict=True) if g is not None and bool(g.any())}


@torch.no_grad()
def after(bench: Workbench, loss: Callable[[], float], step: Gradient) -> float:
    """J(θ_ref + step); the parameters are put back."""
    named = dict(bench.model.named_parameters())
    kept = {name: named[name].clone() for name in step}
    for name, change in step.items():
        named[name].add_(change)
    found = loss()
    for name, value in kept.items():
        named[name].copy_(value)
    return found


def directions(
    bench: Workbench, batch: Sequence[Example], gold_batch: Sequence[Example]
) -> dict[str, Gradient]:
    """H⁻¹ g_J for every curvature, estimated on the conflicts themselves."""
    common: dict[str, Any] = {"layout": bench.layout, "token_budget": 1024}
    plain = compute_gold_gradient(bench.model, gold_batch, bench.objective, **common)
    return {
        name: precondition(bench.model, plain, batch, curvature=name, damping=0.1, seed=SEED, **common)
        for name in CURVATURES
    }


def measure(conflicts: int, size: int, max_response_tokens: int) -> dict[str, Any]:
    """Scores and gains of every conflict."""
    begun = time.perf_counter()
    bench = open_bench(max_response_tokens)
    batch, gold_batch = sample_pairs(bench, conflicts, size)
    toward = directions(bench, batch, gold_batch)
    gradients = [gradient_of(bench, example) for example in batch]
    loss = gold_loss(bench, bench.layout([e.tokens for e in gold_batch]))
    norms = [float(torch.stack([(g**2).sum() for g in found.values()]).sum().sqrt()) for found in gradients]
    rate = LONGEST_STEP / max(norms)
    before = loss()
    steps: dict[str, Callable[[Tensor], Tensor]] = {
        GRADIENT: lambda g: -rate * g,
        ADAM: lambda g: -LEARNING_RATE * g / (g.abs() + 1e-8),
    }
    return {
        "treatments": [example.treatment.name for example in batch],
        "scores": {
            name: [float(sum((along[key] * g).sum() for key, g in found.items())) for found in gradients]
            for name, along in toward.items()
        },
        "gains": {
            kind: [
                before - after(bench, loss, {key: step(g) for key, g in found.items()}) for found in gradients
            ]
            for kind, step in steps.items()
        },
        "settings": {"conflicts": conflicts, "gold": size, "response tokens": max_response_tokens},
        "seconds": time.perf_counter() - begun,
    }


def correlation(scores: Sequence[float], gains: Sequence[float], rival: Sequence[float]) -> dict[str, Any]:
    """ρ, its 95 % interval, and that of its difference from the rival's, by the bootstrap over conflicts."""
    columns = np.array([scores, rival, gains])
    rng = np.random.default_rng(SEED)

    def both(chosen: Any) -> tuple[float, float]:
        x, y, z = columns[:, chosen]
        return float(spearmanr(x, z).statistic), float(spearmanr(y, z).statistic)

    count = len(gains)
    drawn = np.array([both(rng.integers(count, size=count)) for _ in range(RESAMPLES)])
    low, high = np.nanquantile(drawn[:, 0], [0.025, 0.975])
    less, more = np.nanquantile(drawn[:, 0] - drawn[:, 1], [0.025, 0.975])
    return {"n": count, "rho": both(slice(None))[0], "interval": [low, high], "difference": [less, more]}


def correlations(found: dict[str, Any]) -> dict[str, Any]:
    """Of every step, set of conflicts and curvature."""
    kinds = np.array(found["treatments"])
    sets = {"all": kinds != "", "INVERT": kinds == "PREFER", "PUNISH": kinds != "PREFER"}
    return {
        f"{step} | {name} | {curvature}": correlation(
            *(
                np.array(values)[mine]
                for values in (found["scores"][curvature], gains, found["scores"]["identity"])
            )
        )
        for step, gains in found["gains"].items()
        for name, mine in sets.items()
        for curvature in CURVATURES
    }


def table(found: dict[str, Any], rows: dict[str, Any]) -> str:
    """In Markdown."""
    settings = ", ".join(f"{value} {name}" for name, value in found["settings"].items())
    lines = [
        f"{settings}; {found['seconds']:.0f} s on {machine()}.",
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
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=32, help="conflicts")
    parser.add_argument("--gold", type=int, default=9, help="gold pairs")
    parser.add_argument("--tokens", type=int, default=32, help="where a response is cut")
    parser.add_argument("--page", action="store_true", help=f"put the figures into {PAGE.relative_to(ROOT)}")
    parser.add_argument("--json", type=Path, help="write scores, gains and correlations to this file")
    options = parser.parse_args()
    quiet()
    found = measure(options.pairs, options.gold, options.tokens)
    rows = correlations(found)
    figures = table(found, rows)
    print(figures)
    if options.json is not None:
        options.json.write_text(json.dumps(found | {"correlations": rows}, indent=2), encoding="utf-8")
    if options.page:
        head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n\n{figures}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
