"""Impact weights of a whole data set: gold gradient, curvature, every conflict's score, and the table."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from realignment.impact import curvature as curvatures
from realignment.impact.curvature import Curvature
from realignment.impact.ghost import Gradient
from realignment.impact.scores import (
    Engine,
    RowLosses,
    gold_gradient,
    gradient_norm,
    impact_scores,
    normalize_by_length,
)
from realignment.impact.weights import attach_weights, check_scores, tabulate_weights
from realignment.likelihood.backbone import scoring_mode
from realignment.likelihood.log_probs import response_log_probabilities
from realignment.likelihood.packing import Layout, Rows
from realignment.objective.hybrid import Example, Objective, Treatment, pair_losses
from realignment.parameters import ImpactParameters

logger = logging.getLogger(__name__)


def compute_weights(
    model: Any,
    conflicts: Sequence[Example],
    dispositions: Mapping[str, str],
    gold: Sequence[Example],
    objective: Objective,
    parameters: ImpactParameters,
    *,
    layout: Layout,
    seed: int,
) -> pd.DataFrame:
    """Compute the table `impact_weights`.

    Args:
        model: At θ_ref; its trainable parameters are θ.
        conflicts: INVERT and PUNISH examples.
        dispositions: pair_id → disposition.
        gold: The gold batch.
        objective: The loss that is trained.
        parameters: Parameters of the stage `impact`.
        layout: How the model's pairs are packed.
        seed: Seed of the curvature's sample and targets.

    Returns:
        See `impact.weights.tabulate_weights`.

    Raises:
        HealthError: The scores cannot be trusted; see `impact.weights.check_scores`.
    """
    budget = parameters.token_budget
    if parameters.normalize == "uniform":
        # No score is needed, so no backward: log π_ref of every response is all.
        references = score_references(model, conflicts, layout=layout, token_budget=budget)
        scored = [(math.nan, reference) for reference in references]
        weighted = attach_weights(conflicts, scored, normalize="uniform", winsorize=None)
        return tabulate_weights(weighted, [math.nan] * len(weighted), dispositions)
    direction = compute_gold_gradient(model, gold, objective, layout=layout, token_budget=budget)
    logger.info("Gold gradient over %d pairs, norm %.3g", len(gold), gradient_norm(direction))
    if parameters.curvature != "identity":
        order = torch.randperm(len(conflicts), generator=torch.Generator().manual_seed(seed))
        direction = precondition(
            model,
            direction,
            [conflicts[i] for i in order[: parameters.curvature_pairs].tolist()],
            layout=layout,
            token_budget=budget,
            curvature=parameters.curvature,
            damping=parameters.damping,
            seed=seed,
        )
    scored = score_conflicts(
        model,
        conflicts,
        direction,
        objective,
        layout=layout,
        token_budget=budget,
        length_normalize=parameters.length_normalize,
        progress="Impact scores",
        engine=parameters.engine,
    )
    scores = [score for score, _ in scored]
    treatments = [e.treatment for e in conflicts]
    check_scores(torch.tensor(scores), treatments, max_negative_share=parameters.max_negative_share)
    weighted = attach_weights(
        conflicts, scored, normalize=parameters.normalize, winsorize=parameters.winsorize
    )
    return tabulate_weights(weighted, scores, dispositions)


def score_references(
    model: Any, examples: Sequence[Example], *, layout: Layout, token_budget: int
) -> list[tuple[float, ...]]:
    """Compute log π_ref of every response, without a score.

    Args:
        model: At θ_ref.
        examples: N of them.
        layout: How the model's pairs are packed.
        token_budget: Tokens of a batch.

    Returns:
        In nats, one tuple an example, in the given order.
    """
    references: dict[int, tuple[float, ...]] = {}
    batches = layout.pack_batches([e.tokens for e in examples], budget=token_budget, device=model.device)
    with (
        torch.inference_mode(),
        scoring_mode(model),
        tqdm(total=len(examples), desc="Reference log-probabilities", unit="pair") as bar,
    ):
        for members, rows in batches:
            logprobs = response_log_probabilities(model, rows).cpu()
            parts = logprobs.split([len(examples[i].tokens.responses) for i in members])
            references.update((i, tuple(part.tolist())) for i, part in zip(members, parts, strict=True))
            bar.update(len(members))
    return [references[i] for i in range(len(examples))]


def compute_gold_gradient(
    model: Any, gold: Sequence[Example], objective: Objective, *, layout: Layout, token_budget: int
) -> Gradient:
    """Compute g_J at θ_ref.

    The gold loss is DPO, whatever the training loss: it states the goal, not the way.

    Args:
        model: At θ_ref; its trainable parameters are θ.
        gold: The gold batch.
        objective: Its β counts.
        layout: How the model's pairs are packed.
        token_budget: Tokens of a batch.

    Returns:
        By parameter name; see `impact.scores.gold_gradient`.
    """
    dpo = Objective(beta=objective.beta)

    def losses(logprobs: Tensor, rows: Rows) -> Tensor:
        # At θ_ref the policy is the reference.
        treatments = torch.full_like(rows.first, int(Treatment.PREFER))
        return pair_losses(logprobs, logprobs.detach(), rows, treatments, dpo)

    return gold_gradient(model, _pack_all(model, gold, layout, token_budget), losses)


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
    """Precondition the gold gradient by the curvature, estimated on the given conflicts.

    Args:
        model: At θ_ref; its trainable parameters are θ.
        direction: The gold gradient.
        conflicts: Pairs on which the curvature is estimated.
        layout: How the model's pairs are packed.
        token_budget: Tokens of a batch.
        curvature: See `impact.curvature.precondition`, as of the other arguments.
        damping: Relative, > 0.
        seed: Seed of the sampled targets.

    Returns:
        By parameter name.
    """
    batches = _pack_all(model, conflicts, layout, token_budget)
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
    """Compute impact score and reference log-probabilities of every conflict, in one pass.

    Args:
        model: At θ_ref, from `model.adapters.make_trainable`.
        conflicts: INVERT and PUNISH examples.
        direction: The gold gradient.
        objective: The loss whose gradient is scored: the one that is trained, as labels without errors would
            have it.
        layout: How the model's pairs are packed.
        token_budget: Tokens of a batch.
        length_normalize: Whether a score is divided by its pair's response tokens.
        progress: Label of the progress bar; None: no bar.
        engine: See `impact.scores.impact_scores`.

    Returns:
        Score and log π_ref of each response in nats, for each conflict in the given order.
    """
    results: dict[int, tuple[float, tuple[float, ...]]] = {}
    batches = layout.pack_batches([e.tokens for e in conflicts], budget=token_budget, device=model.device)
    with tqdm(total=len(conflicts), desc=progress, unit="pair", disable=progress is None) as bar:
        for members, rows in batches:
            batch = [conflicts[i] for i in members]
            losses = _losses_at_reference(batch, objective)
            scores, logprobs = impact_scores(model, rows, losses, direction, engine=engine)
            if length_normalize:
                scores = normalize_by_length(scores, rows)
            # (R,) → one tensor a pair. One copy from the device for a batch, not two for every pair.
            references = logprobs.cpu().split([len(e.tokens.responses) for e in batch])
            for index, score, reference in zip(members, scores.tolist(), references, strict=True):
                results[index] = (score, tuple(reference.tolist()))
            bar.update(len(members))
    return [results[i] for i in range(len(conflicts))]


def _losses_at_reference(examples: Sequence[Example], objective: Objective) -> RowLosses:
    """Row losses at θ_ref: the policy is the reference, so its own log-probabilities are the reference's."""
    error_free = objective.without_label_errors()

    def losses(logprobs: Tensor, rows: Rows) -> Tensor:
        treatments = torch.tensor([int(e.treatment) for e in examples], device=logprobs.device)
        return pair_losses(logprobs, logprobs.detach(), rows, treatments, error_free)

    return losses


def _pack_all(model: Any, examples: Sequence[Example], layout: Layout, token_budget: int) -> list[Rows]:
    """Rows of all examples on the model's device; which example is where does not matter to a mean or sum."""
    tokens = [example.tokens for example in examples]
    return [rows for _, rows in layout.pack_batches(tokens, budget=token_budget, device=model.device)]
