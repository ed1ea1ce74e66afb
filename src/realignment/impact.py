"""Alignment impact weights (method.md, section 5): how much training on a conflict also serves the gold batch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from realignment.likelihood import Rows, response_log_probabilities
from realignment.records import HealthError, RealignmentError

Gradient = dict[str, Tensor]
"""∂/∂θ by parameter name, for the trainable parameters."""

RowLosses = Callable[[Tensor, Rows], Tensor]
"""Maps the log-probabilities of all responses (R,) to one loss per row (B,)."""


class ImpactError(RealignmentError):
    """Impact scores cannot be computed for this model."""


@contextmanager
def scoring_mode(model: nn.Module) -> Iterator[None]:
    """Dropout off: gold gradient, scores and reference must see the same function (peft leaves a new LoRA in train mode)."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def gold_gradient(model: nn.Module, batches: list[Rows], losses: RowLosses) -> Gradient:
    """g_J = ∇_θ mean over the gold batch of the gold loss (TRACE, arXiv:2511.02623, Algorithm 1), accumulated in fp32.

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


class GhostContraction:
    """Contracts every row's gradient with one direction during an ordinary backward; no row's gradient is ever formed.

    For a linear layer y = x Wᵀ, row i's gradient is δᵢᵀ xᵢ (δ = ∂loss/∂y), so ⟨G, δᵢᵀ xᵢ⟩ = Σ_t δ_it · (G x_it): one
    product with the direction G instead of B gradients of the size of W. Rows are independent (rows are the samples).
    Weight gradients are switched off on the way, so the pass costs a forward and a backward of the activations.
    """

    def __init__(self, model: nn.Module, direction: Gradient, rows: int) -> None:
        self.model, self.direction = model, direction
        self.scores: Tensor | None = None
        self._rows = rows
        self._hooks: list[Any] = []
        self._frozen: list[nn.Parameter] = []

    def __enter__(self) -> "GhostContraction":
        for name, module in self.model.named_modules():
            weights = {key: p for key, p in module.named_parameters(recurse=False) if p.requires_grad}
            if not weights:
                continue
            if set(weights) - {"weight", "bias"} or not _supported(module):
                raise ImpactError(
                    f"No impact score for trainable {', '.join(weights)} of {name} ({type(module).__name__}): expected "
                    "linear, embedding or RMS-norm layers. Train with LoRA, or freeze this layer."
                )
            self._hooks.append(module.register_forward_hook(self._keep(name)))
            self._frozen += weights.values()
        for parameter in self._frozen:
            parameter.requires_grad_(False)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()
        for parameter in self._frozen:
            parameter.requires_grad_(True)

    def _keep(self, name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if not output.requires_grad:
                output.requires_grad_(True)
            entered, left = inputs[0].detach(), output.detach()
            output.register_hook(lambda delta: self._contract(name, module, entered, left, delta))

        return hook

    @torch.no_grad()
    def _contract(self, name: str, module: nn.Module, entered: Tensor, left: Tensor, delta: Tensor) -> None:
        score = _contraction(module, entered, left, delta, self.direction.get(f"{name}.weight"))
        bias = self.direction.get(f"{name}.bias")
        if bias is not None:
            score = score + delta @ bias.to(delta.dtype)
        per_row = score.flatten(1).sum(1, dtype=torch.promote_types(score.dtype, torch.float32))
        self.scores = per_row if self.scores is None else self.scores + per_row


def _supported(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Embedding) or "RMSNorm" in type(module).__name__


def _contraction(
    module: nn.Module, entered: Tensor, left: Tensor, delta: Tensor, weight: Tensor | None
) -> Tensor:
    """⟨direction, row's gradient⟩ per position, shape (B, L)."""
    if weight is None:
        return delta.new_zeros(delta.shape[:2])
    weight = weight.to(delta.dtype)
    if isinstance(module, nn.Linear):
        return (F.linear(entered, weight) * delta).sum(-1)
    if isinstance(module, nn.Embedding):
        score = (weight[entered] * delta).sum(-1)
        # Autograd drops the padding row's gradient, so training would too (in SmolLM2 it is a real token, <|im_end|>).
        return score if module.padding_idx is None else score * (entered != module.padding_idx)
    return (left / module.weight * weight * delta).sum(-1)


def impact_scores(
    model: nn.Module,
    rows: Rows,
    losses: RowLosses,
    direction: Gradient,
    *,
    trainable_head: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """s_i = ⟨g_J, ∇_θ ℓ_i⟩ for every row, and the log-probabilities that the same forward gives.

    The derivative of ℓ_i along the gold gradient; > 0: descending ℓ_i also descends the gold loss. TRACE, Algorithm 1.

    Args:
        model: Its trainable parameters are θ. A fresh LoRA has B = 0, so only the B directions contribute.
        rows: The pairs to score, one a row.
        losses: One loss per row, given the log-probabilities of all responses.
        direction: The gold gradient.
        trainable_head: Refused where given: a trained output matrix is applied outside the modules' hooks.

    Returns:
        Scores, shape (B,), and log-probabilities (detached), shape (R,).
    """
    if trainable_head is not None and trainable_head.requires_grad:
        raise ImpactError(
            "The output head is trained: freeze it or the embedding it is tied to, or train with LoRA."
        )
    with scoring_mode(model), GhostContraction(model, direction, len(rows.input_ids)) as contraction:
        logprobs = response_log_probabilities(model, rows)
        losses(logprobs, rows).sum().backward()
    if contraction.scores is None:
        raise ImpactError("The model has no trainable parameter to take the impact with.")
    return contraction.scores, logprobs.detach()


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
        normalize: ``mean_one``: w̃ = w N_d / Σ_d w within each disposition, so that α_KL means what it says.
            ``l1``: w̃ = w / Σ w over all (the paper's). ``uniform``: 1 for every pair, scores are only reported.
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
            f"{int((~torch.isfinite(scores)).sum())} of {len(scores)} impact scores are not finite: the model overflows on "
            "these pairs. Use float32 (`model.dtype`) or drop them."
        )
    negative = float((scores < 0).float().mean())
    if not (scores > 0).any() or negative > max_negative_share:
        raise HealthError(
            f"{negative:.0%} of {len(scores)} impact scores are negative and {int((scores > 0).sum())} positive (limit: "
            f"{max_negative_share:.0%} negative): the gold batch opposes the tasks. Look at the gold batch and the oracle's "
            "judgments, enlarge `gold.size`, or set `impact.normalize: uniform`."
        )
