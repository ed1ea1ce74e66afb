"""The impact phase over a whole data set: gold gradient, every conflict's score and weight, their health."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from realignment import impact
from realignment.examples import RESPONSES
from realignment.gradients import curvature as curvatures
from realignment.gradients.curvature import Curvature
from realignment.gradients.ghost import Gradient
from realignment.impact import Engine, RowLosses
from realignment.objective import Example, Objective, Treatment, error_rates, pair_losses
from realignment.packing.rows import Layout, Rows


def _losses(examples: Sequence[Example], objective: Objective) -> RowLosses:
    """Row losses at θ_ref: the policy is the reference, so its own log-probabilities are the reference's."""

    def losses(logprobs: Tensor, rows: Rows) -> Tensor:
        kinds = torch.tensor([int(e.treatment) for e in examples], device=logprobs.device)
        rates = error_rates(examples).to(logprobs)
        return pair_losses(logprobs, logprobs.detach(), rows, kinds, objective, rates)

    return losses


def compute_gold_gradient(
    model: Any, gold: Sequence[Example], objective: Objective, *, layout: Layout, token_budget: int
) -> Gradient:
    """g_J at θ_ref. The gold loss is DPO, whatever the training loss: it states the goal, not the way."""
    dpo = Objective(beta=objective.beta)
    batches = [
        layout([gold[i].tokens for i in members]).to(model.device)
        for members in layout.batches([e.tokens for e in gold], budget=token_budget)
    ]
    losses = lambda logprobs, rows: pair_losses(  # noqa: E731
        logprobs, logprobs.detach(), rows, torch.full_like(rows.first, int(Treatment.PREFER)), dpo
    )
    return impact.gold_gradient(model, batches, losses)


def precondition(
    model: Any,
    direction: Gradient,
    conflicts: Sequence[Example],
    *,
    layout: Layout,
    token_budget: int,
    curvature: Curvature,
    damping: float,
    seed: int,
) -> Gradient:
    """The gold gradient by the curvature, estimated on the given conflicts; see `curvature.precondition`."""
    tokens = [e.tokens for e in conflicts]
    batches = [
        layout([tokens[i] for i in members]).to(model.device)
        for members in layout.batches(tokens, budget=token_budget)
    ]
    return curvatures.precondition(model, batches, direction, curvature=curvature, damping=damping, seed=seed)


def score_conflicts(
    model: Any,
    conflicts: Sequence[Example],
    direction: Gradient,
    objective: Objective,
    *,
    layout: Layout,
    token_budget: int,
    length_normalize: bool,
    progress: str | None,
    engine: Engine = "ghost",
) -> list[tuple[float, tuple[float, ...]]]:
    """Impact score and reference log-probabilities of every conflict, in order, from one pass.

    Args:
        model: At θ_ref, from `models.adapters.trainable_model`.
        conflicts: INVERT and PUNISH examples.
        direction: The gold gradient.
        objective: The loss whose gradient is scored: the one that is trained.
        layout: How the model's pairs are laid out.
        token_budget: Tokens of a batch.
        length_normalize: Divide a score by the pair's response tokens, or length alone makes it high.
        progress: Label of the progress bar; None: no bar.
        engine: See `impact.impact_scores`.
    """
    results: dict[int, tuple[float, tuple[float, ...]]] = {}
    with tqdm(total=len(conflicts), desc=progress, unit="pair", disable=progress is None) as bar:
        for members in layout.batches([e.tokens for e in conflicts], budget=token_budget):
            batch = [conflicts[i] for i in members]
            rows = layout([e.tokens for e in batch]).to(model.device)
            losses = _losses(batch, objective)
            scores, logprobs = impact.impact_scores(model, rows, losses, direction, engine=engine)
            if length_normalize:
                scores = scores / torch.zeros_like(scores).index_add(
                    0, rows.pair, rows.length.to(scores.dtype)
                )
            # One copy from the device for a batch, not two for every pair.
            references = logprobs.cpu().split([len(e.tokens.responses) for e in batch])
            for index, score, reference in zip(members, scores.tolist(), references, strict=True):
                results[index] = (score, tuple(reference.tolist()))
            bar.update(len(members))
    return [results[i] for i in range(len(conflicts))]


def weigh(
    conflicts: Sequence[Example],
    scored: Sequence[tuple[float, tuple[float, ...]]],
    dispositions: Sequence[str],
    *,
    normalize: Literal["mean_one", "l1", "uniform"],
    winsorize: float | None,
) -> list[Example]:
    """The examples with their weights and reference log-probabilities."""
    scores = torch.tensor([score for score, _ in scored])
    weights = impact.impact_weights(scores, list(dispositions), normalize=normalize, winsorize=winsorize)
    return [
        replace(example, weight=float(weight), reference=reference)
        for example, weight, (_, reference) in zip(conflicts, weights, scored, strict=True)
    ]


def report_weights(weights: pd.DataFrame) -> dict[str, Any]:
    """Health of the weights by disposition.

    Args:
        weights: Columns disposition, score, weight.

    Returns:
        Disposition → n, positive, negative, zero, mean_score, median_score, max_weight,
        effective_sample_size.
    """
    report = {}
    for disposition, part in weights.groupby("disposition"):
        score, weight = part["score"], part["weight"]
        squares = float((weight**2).sum())
        report[str(disposition)] = {
            "n": len(part),
            "positive": int((score > 0).sum()),
            "negative": int((score < 0).sum()),
            "zero": int((score == 0).sum()),
            "mean_score": float(score.mean()),
            "median_score": float(score.median()),
            "max_weight": float(weight.max()),
            "effective_sample_size": float(weight.sum()) ** 2 / squares if squares else 0.0,
        }
    return report


def to_table(
    weighed: Sequence[Example], scores: Sequence[float], dispositions: Sequence[str]
) -> pd.DataFrame:
    """The table `impact_weights`: one row a conflict, with score, weight and reference log-probabilities."""
    rows = []
    for example, score, disposition in zip(weighed, scores, dispositions, strict=True):
        columns = RESPONSES[example.treatment]
        references = dict(zip((f"reference_{c}" for c in columns), example.reference, strict=True))
        rows.append(
            {
                "pair_id": example.pair_id,
                "disposition": disposition,
                "treatment": example.treatment.name.lower(),
                "score": score,
                "weight": example.weight,
            }
            | references
        )
    names = ["pair_id", "disposition", "treatment", "score", "weight"]
    names += [f"reference_{name}" for name in ("chosen", "rejected", "correction")]
    return pd.DataFrame(rows).reindex(columns=names)
