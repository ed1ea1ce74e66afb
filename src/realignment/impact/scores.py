"""Impact scores (method.md, section 5): how much a step on a pair lowers the gold batch's loss."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from realignment.impact.directional import finite_differences, forward_mode, log_probability_derivatives
from realignment.impact.ghost import GhostContraction, Gradient, LayerPasses
from realignment.impact.layers import ImpactError
from realignment.likelihood.backbone import head_name, output_head, scoring_mode
from realignment.likelihood.head import Head
from realignment.likelihood.log_probs import (
    response_hidden_states,
    response_log_probabilities,
    sum_per_response,
)
from realignment.likelihood.packing import Rows
from realignment.likelihood.tiled import token_log_probabilities

RowLosses = Callable[[Tensor, Rows], Tensor]
"""Log-probabilities of all responses (R,) → one loss per pair (P,), which depends on the pair's own alone."""

Engine = Literal["ghost", "jvp", "finite_difference"]
"""How scores are computed; see `impact_scores`."""


def gold_gradient(model: nn.Module, batches: list[Rows], losses: RowLosses) -> Gradient:
    """Compute g_J = ∇_θ of the gold batch's mean loss (TRACE, arXiv:2511.02623, Algorithm 1).

    Args:
        model: Its trainable parameters are θ.
        batches: The gold pairs, packed.
        losses: The gold loss of each pair.

    Returns:
        By parameter name, accumulated in float32 or better.

    Raises:
        ImpactError: It is zero throughout.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    total = {
        name: torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32))
        for name, p in parameters.items()
    }
    count = sum(len(rows.first) for rows in batches)
    with scoring_mode(model):
        for rows in batches:
            # Divided by the pairs of all batches, so that the batches' gradients add up to the mean's.
            loss = losses(response_log_probabilities(model, rows), rows).sum() / count
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    total[name] += gradient
    if not any(bool(gradient.any()) for gradient in total.values()):
        raise ImpactError(
            f"The gold gradient is zero in all of {len(total)} trained tensors, so that no pair would have a "
            "weight. Expected a gold loss that depends on them. Look whether the gold pairs' two responses "
            "are the same, and whether something between loss and adapter stops gradients."
        )
    return total


def gradient_norm(gradient: Gradient) -> float:
    """Return ‖g‖₂ over all parameters."""
    squares = [(g.double() ** 2).sum() for g in gradient.values()]
    return float(torch.sqrt(torch.stack(squares).sum()))


def impact_scores(
    model: nn.Module,
    rows: Rows,
    losses: RowLosses,
    direction: Gradient,
    *,
    engine: Engine = "ghost",
    step: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute s_i = ⟨g_J, ∇_θ ℓ_i⟩ of every pair, and log-probabilities from the same pass.

    The derivative of ℓ_i along the gold gradient; > 0: descending ℓ_i also descends the gold loss (TRACE,
    Algorithm 1). No pair's own gradient is ever formed.

    Args:
        model: Its trainable parameters are θ. A fresh LoRA has B = 0, so only the B directions contribute.
        rows: The pairs to score.
        losses: One loss per pair, given the log-probabilities of all responses.
        direction: The gold gradient, with an entry for every trainable parameter.
        engine: ``ghost``: one forward and one backward, exact, any precision. ``jvp``: one forward-mode pass,
            exact, keeps no activations. ``finite_difference``: two forwards, approximate, float32 or better.
        step: Length of the finite difference's step in parameter space; None: by what is trained.

    Returns:
        Scores, shape (P,), and log-probabilities (detached), shape (R,).

    Raises:
        ImpactError: Nothing is trained, a layer's share in the score is not known, or finite differences in
            half precision.
    """
    with scoring_mode(model):
        match engine:
            case "ghost":
                return _ghost_scores(model, rows, losses, direction)
            case "jvp":
                logprobs, derivatives = forward_mode(model, rows, direction)
            case "finite_difference":
                logprobs, derivatives = finite_differences(model, rows, direction, step=step)
    # Chain rule: the derivative of ℓ_i is Σ_y ∂ℓ_i/∂ log π(y) · d log π(y) over the pair's responses.
    slopes = loss_slopes(losses, logprobs, rows)  # (R,)
    scores = torch.zeros(len(rows.first), dtype=derivatives.dtype, device=derivatives.device)
    return scores.index_add(0, rows.pair, slopes * derivatives), logprobs


def loss_slopes(losses: RowLosses, logprobs: Tensor, rows: Rows) -> Tensor:
    """Compute ∂ Σ_i ℓ_i / ∂ log π(y) of every response.

    Args:
        losses: One loss per pair.
        logprobs: log π(y) in nats, shape (R,).
        rows: The pairs.

    Returns:
        Shape (R,).
    """
    leaf = logprobs.detach().requires_grad_(True)
    with torch.enable_grad():
        (slopes,) = torch.autograd.grad(losses(leaf, rows).sum(), leaf)
    return slopes


def normalize_by_length(scores: Tensor, rows: Rows) -> Tensor:
    """Divide each pair's score by its response tokens; without it length alone makes a score high.

    Args:
        scores: Shape (P,).
        rows: The pairs.

    Returns:
        Shape (P,).
    """
    tokens = torch.zeros_like(scores).index_add(0, rows.pair, rows.length.to(scores.dtype))
    return scores / tokens


def _ghost_scores(
    model: nn.Module, rows: Rows, losses: RowLosses, direction: Gradient
) -> tuple[Tensor, Tensor]:
    """`impact_scores` by one forward and one backward: every layer's share, then the head's."""
    head = output_head(model)
    contraction = GhostContraction(direction, rows.owner, len(rows.first))
    weight_change = head_direction(model, head, direction)
    with LayerPasses(model, rows.shape, contraction):
        hidden = response_hidden_states(model, rows)  # (N, d)
        logprobs = sum_per_response(token_log_probabilities(hidden, head, rows.target), rows)
        if not logprobs.requires_grad:
            raise ImpactError("The model has no trainable parameter below its head to take the impact with.")
        # The losses' own graph ends at log π; the model's backward goes on from there, with Σ_i ℓ_i's slopes.
        slopes = loss_slopes(losses, logprobs, rows)  # (R,)
        logprobs.backward(slopes)
    if not contraction.layers:
        raise ImpactError("No trainable layer takes part in the model's forward pass.")
    scores = contraction.scores
    if weight_change is not None:
        # The head is applied outside its module, where no layer pass is seen.
        scores = scores + head_scores(hidden.detach(), head, rows, slopes[rows.response], weight_change)
    return scores, logprobs.detach()


def head_direction(model: nn.Module, head: Head, direction: Gradient) -> Tensor | None:
    """Return the gold gradient of the output head's matrix, shape (V, d); None where it is not trained."""
    weight_change = direction.get(head_name(model, head) or "")
    return None if weight_change is None else weight_change.to(head.weight.dtype)


def head_scores(hidden: Tensor, head: Head, rows: Rows, slopes: Tensor, weight_change: Tensor) -> Tensor:
    """Compute the output head's share in every pair's score.

    Args:
        hidden: States that predict the tokens, shape (N, d); no gradient.
        head: The output head.
        rows: The pairs.
        slopes: ∂ℓ / ∂ log π of each token, shape (N,).
        weight_change: The gold gradient of the head's matrix, shape (V, d).

    Returns:
        Shape (P,).
    """
    # d log π of each token where W moves along the gold gradient, (N,); then a sum over a pair's tokens.
    derivatives = log_probability_derivatives(hidden, head.detach(), rows.target, weight_change=weight_change)
    owner = rows.pair[rows.response]
    return derivatives.new_zeros(len(rows.first)).index_add(0, owner, slopes * derivatives)
