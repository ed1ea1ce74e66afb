"""The impact phase over a whole data set: gold gradient, every conflict's score and weight, their health."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from realignment.impact import curvature as curvatures
from realignment.impact.curvature import Curvature
from realignment.impact.ghost import Gradient
from realignment.impact.scores import Engine, RowLosses, gold_gradient, impact_scores
from realignment.likelihood.packing import Layout, Rows
from realignment.objective.hybrid import Example, Objective, Treatment, error_rates, pair_losses


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
    return gold_gradient(model, batches, losses)


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
        model: At θ_ref, from `model.adapters.trainable_model`.
        conflicts: INVERT and PUNISH examples.
        direction: The gold gradient.
        objective: The loss whose gradient is scored: the one that is trained.
        layout: How the model's pairs are laid out.
        token_budget: Tokens of a batch.
        length_normalize: Divide a score by the pair's response tokens, or length alone makes it high.
        progress: Label of the progress bar; None: no bar.
        engine: See `impact.scores.impact_scores`.
    """
    results: dict[int, tuple[float, tuple[float, ...]]] = {}
    with tqdm(total=len(conflicts), desc=progress, unit="pair", disable=progress is None) as bar:
        for members in layout.batches([e.tokens for e in conflicts], budget=token_budget):
            batch = [conflicts[i] for i in members]
            rows = layout([e.tokens for e in batch]).to(model.device)
            losses = _losses(batch, objective)
            scores, logprobs = impact_scores(model, rows, losses, direction, engine=engine)
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
