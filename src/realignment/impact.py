"""Alignment impact weights (method.md, section 5): how much training on a conflict serves the gold batch."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from realignment.ghost import GhostContraction, ImpactError
from realignment.likelihood import (
    output_head,
    response_hidden_states,
    response_log_probabilities,
    scoring_mode,
    sum_per_response,
    token_log_probabilities,
)
from realignment.records import HealthError
from realignment.rows import Rows

Gradient = dict[str, Tensor]
"""∂/∂θ by parameter name, for the trainable parameters."""

RowLosses = Callable[[Tensor, Rows], Tensor]
"""Log-probabilities of all responses (R,) → one loss per row (B,), which depends on the row's own alone."""


def gold_gradient(model: nn.Module, batches: list[Rows], losses: RowLosses) -> Gradient:
    """g_J = ∇_θ of the gold batch's mean loss (TRACE, arXiv:2511.02623, Algorithm 1), accumulated in fp32.

    Args:
        model: Its trainable parameters are θ.
        batches: The gold pairs, laid out.
        losses: The gold loss of each row.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    total = {
        name: torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32))
        for name, p in parameters.items()
    }
    count = sum(len(rows.input_ids) for rows in batches)
    with scoring_mode(model):
        for rows in batches:
            loss = losses(response_log_probabilities(model, rows), rows).sum() / count
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    total[name] += gradient
    return total


def gradient_norm(gradient: Gradient) -> float:
    """‖g‖₂ over all parameters."""
    return float(torch.sqrt(torch.stack([(g.double() ** 2).sum() for g in gradient.values()]).sum()))


def impact_scores(
    model: nn.Module, rows: Rows, losses: RowLosses, direction: Gradient
) -> tuple[Tensor, Tensor]:
    """s_i = ⟨g_J, ∇_θ ℓ_i⟩ for every row, and the log-probabilities that the same forward gives.

    The derivative of ℓ_i along the gold gradient; > 0: descending ℓ_i also descends the gold loss (TRACE,
    Algorithm 1). One ordinary backward; no row's own gradient is ever formed.

    Args:
        model: Its trainable parameters are θ. A fresh LoRA has B = 0, so only the B directions contribute.
        rows: The pairs to score, one a row.
        losses: One loss per row, given the log-probabilities of all responses.
        direction: The gold gradient, with an entry for every trainable parameter.

    Returns:
        Scores, shape (B,), and log-probabilities (detached), shape (R,).

    Raises:
        ImpactError: Nothing is trained, or a layer whose share in the score is not known.
    """
    shape = (rows.input_ids.shape[0], rows.input_ids.shape[1])
    head = output_head(model)
    head_direction = next((direction.get(name) for name, p in model.named_parameters() if p is head), None)
    with scoring_mode(model), GhostContraction(model, direction, shape) as contraction:
        hidden = response_hidden_states(model, rows)
        logprobs = sum_per_response(token_log_probabilities(hidden, head, rows.target), rows)
        if not logprobs.requires_grad:
            raise ImpactError("The model has no trainable parameter below its head to take the impact with.")
        known = logprobs.detach().requires_grad_(True)
        (cotangent,) = torch.autograd.grad(losses(known, rows).sum(), known)
        logprobs.backward(cotangent)
    scores = contraction.scores
    if scores is None:
        raise ImpactError("No trainable layer takes part in the model's forward pass.")
    if head_direction is not None:
        along = _along_head(hidden.detach(), head.detach(), head_direction.to(head.dtype), rows.target)
        scores = scores.index_add(0, rows.row, (cotangent[rows.response] * along).to(scores.dtype))
    return scores, known.detach()


def _along_head(hidden: Tensor, head: Tensor, direction: Tensor, target: Tensor, tile: int = 128) -> Tensor:
    """Derivative of log π(target_t) along the head's G: (G h_t)[target_t] − Σ_v π_v (G h_t)_v, shape (N,)."""
    exact, parts = torch.promote_types(hidden.dtype, torch.float32), []
    for states, ids in zip(hidden.split(tile), target.split(tile), strict=True):
        logits, change = states @ head.t(), states @ direction.t()
        expected = (torch.softmax(logits.to(exact), -1) * change).sum(-1)
        parts.append(change.gather(1, ids[:, None])[:, 0] - expected)
    return torch.cat(parts)


def impact_weights(
    scores: Tensor,
    groups: list[str],
    *,
    normalize: Literal["mean_one", "l1", "uniform"],
    winsorize: float | None = None,
) -> Tensor:
    """w̃ from s: negative impact gets weight zero, then the scale is set.

    Args:
        scores: s_i, shape (N,).
        groups: Disposition of each pair, length N.
        normalize: ``mean_one``: w̃ = w N_d / Σ_d w in each disposition d, so that α_KL means what it says.
            ``l1``: w̃ = w / Σ w over all (the paper's). ``uniform``: 1 for every pair.
        winsorize: Quantile in (0, 1] that caps the largest weights of a disposition; None: no cap.

    Returns:
        Weights ≥ 0, shape (N,). A disposition whose scores are all ≤ 0 has weight zero throughout.
    """
    if normalize == "uniform":
        return torch.ones_like(scores)
    weights = scores.clamp(min=0)
    members = {group: torch.tensor([g == group for g in groups]) for group in sorted(set(groups))}
    for member in members.values():
        if winsorize is not None:
            weights[member] = weights[member].clamp(max=torch.quantile(weights[member], winsorize))
    if normalize == "l1":
        return weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
    for member in members.values():
        total = weights[member].sum().clamp(min=torch.finfo(weights.dtype).tiny)
        weights[member] = weights[member] * member.sum() / total
    return weights


def check_scores(scores: Tensor, *, max_negative_share: float) -> None:
    """Stop where the gold batch opposes the tasks (method.md, section 10).

    Raises:
        HealthError: A score is not finite, none is positive, or too many are negative.
    """
    if not torch.isfinite(scores).all():
        raise HealthError(
            f"{int((~torch.isfinite(scores)).sum())} of {len(scores)} impact scores are not finite: the "
            "model overflows on these pairs. Use float32 (`model.dtype`) or drop them."
        )
    negative = float((scores < 0).float().mean())
    if not (scores > 0).any() or negative > max_negative_share:
        raise HealthError(
            f"{negative:.0%} of {len(scores)} impact scores are negative and {int((scores > 0).sum())} "
            f"positive (limit: {max_negative_share:.0%} negative): the gold batch opposes the tasks. Look at "
            "the gold batch and the oracle's judgments, enlarge `gold.size`, or set `impact.normalize: "
            "uniform`."
        )
