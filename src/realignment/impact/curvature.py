"""Curvature for the impact weights: the gold gradient preconditioned once, H⁻¹ g_J; the cost per pair stays.

The marginal gain of a pair is −g_Jᵀ H⁻¹ g_i (TRACE, arXiv:2511.02623, bi-level problem); the paper takes H ≈
γI. Here H is the Fisher information of the model's own next-token distribution at the response tokens
(targets sampled from the model, so it is the Fisher, not its empirical stand-in), approximated per weight
matrix.
"""

import math
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from realignment.impact.ghost import Gradient, LayerPasses
from realignment.impact.layers import derivative_along
from realignment.likelihood.backbone import head_name, output_head, scoring_mode
from realignment.likelihood.head import Head, less_target, scaled_by, tile_of
from realignment.likelihood.log_probs import response_hidden_states
from realignment.likelihood.packing import Rows
from realignment.likelihood.tiled import token_log_probabilities

Curvature = Literal["identity", "diagonal_fisher", "kfac"]

WIDEST = 4096
"""Width up to which a Kronecker factor is a matrix, of 64 MiB at most; a wider one is its diagonal.

An adapter on all linear layers of Llama-3.1-8B would have 92 GiB of whole factors; so it has 18 GiB, fresh
(B = 0) 6 GiB."""


def precondition(
    model: nn.Module,
    batches: Sequence[Rows],
    direction: Gradient,
    *,
    curvature: Curvature,
    damping: float,
    seed: int,
) -> Gradient:
    """(F + λ)⁻¹ G, with F estimated on the given pairs.

    ``diagonal_fisher``: F = Σ_t (δ_t ∘ δ_t)ᵀ (x_t ∘ x_t) for each matrix. ``kfac``: F = T · S ⊗ A with A =
    mean x xᵀ and S = mean δ δᵀ over T tokens (Martens & Grosse 2015, arXiv:1503.05671; a sample is every
    token on which a likelihood depends, so padding is none), for linear layers; biases, norms, embeddings,
    the output head and factors wider than `WIDEST` keep the diagonal. λ is relative: `damping` times the mean
    diagonal of F (for ``kfac`` its root for each factor), because only the direction of the result matters.

    Args:
        model: Its trainable parameters are θ.
        batches: Pairs on which F is estimated.
        direction: G, the gold gradient.
        curvature: Which F; ``identity`` returns G.
        damping: Relative λ, > 0.
        seed: Of the sampled targets.

    Returns:
        By parameter name, of the direction's shapes. Where G is zero (A of a fresh LoRA) F is not estimated,
        and where F is zero throughout, so is G: it is left as it is.
    """
    if curvature == "identity":
        return direction
    wanted = {name for name, along in direction.items() if bool(along.any())}
    fisher = _Fisher(factors=curvature == "kfac", wanted=wanted)
    head = output_head(model)
    trained_head = head_name(model, head)
    with scoring_mode(model):
        generator = torch.Generator(head.weight.device).manual_seed(seed)
        for rows in batches:
            with LayerPasses(model, (rows.input_ids.shape[0], rows.input_ids.shape[1]), fisher.observe):
                hidden = response_hidden_states(model, rows)
                target = sample_targets(hidden.detach(), head, generator)
                token_log_probabilities(hidden, head, target).sum().backward()
            if trained_head is not None and trained_head in wanted:
                fisher.add(trained_head, head_fisher_diagonal(hidden.detach(), head, target))
    return {name: fisher.solve(name, along, damping) for name, along in direction.items()}


@dataclass
class _Fisher:
    """Sums over tokens, by parameter name: diagonals; of linear layers the two factors and T, the tokens.

    Attributes:
        factors: Whether linear layers have them.
        wanted: The parameters that F is estimated for.
        diagonals: Shape of the parameter.
        inputs: Σ xxᵀ, or its diagonal.
        outputs: Σ δδᵀ, or its diagonal.
        tokens: T.
    """

    factors: bool
    wanted: AbstractSet[str]
    diagonals: dict[str, Tensor] = field(default_factory=dict)
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    tokens: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, diagonal: Tensor) -> None:
        _add(self.diagonals, name, diagonal)

    def observe(self, name: str, module: nn.Module, entered: Tensor, delta: Tensor) -> None:
        """Consume one layer pass."""
        exact = torch.promote_types(delta.dtype, torch.float32)
        deltas = delta.flatten(0, -2).to(exact)
        for key, _ in module.named_parameters(recurse=False):
            full = f"{name}.{key}"
            if full not in self.wanted:
                continue
            if key == "bias":
                self.add(full, (_per_token(delta.to(exact)) ** 2).sum(0))
            elif isinstance(module, nn.Linear):
                tokens = entered.flatten(0, -2).to(exact)
                if self.factors:
                    reached = deltas.any(-1, keepdim=True).to(exact)
                    _add(self.inputs, full, _second_moment(tokens * reached))
                    _add(self.outputs, full, _second_moment(deltas))
                    _add(self.tokens, full, reached.sum())
                else:
                    self.add(full, (deltas**2).t() @ tokens**2)
            else:
                self.add(full, _diagonal(module, entered, delta.to(exact)))

    def solve(self, name: str, along: Tensor, damping: float) -> Tensor:
        """(F + λ)⁻¹ G of one parameter."""
        if name in self.inputs:
            outputs, inputs = self.outputs[name], self.inputs[name]
            if not bool(outputs.any()) or not bool(inputs.any()):
                return along
            # F = T · S ⊗ A is Σ δδᵀ ⊗ Σ xxᵀ / T: a sum over tokens, as the diagonals of other parameters are.
            left = _damped_solve(outputs / self.tokens[name], along.to(outputs.dtype), damping)
            return _damped_solve(inputs, left.t(), damping).t().to(along.dtype)
        diagonal = self.diagonals.get(name)
        if diagonal is None or not bool(diagonal.any()):
            return along
        return (along / (diagonal + damping * diagonal.mean())).to(along.dtype)


def _add(total: dict[str, Tensor], name: str, value: Tensor) -> None:
    total[name] = total[name] + value if name in total else value


def _second_moment(values: Tensor) -> Tensor:
    """Σ_t v vᵀ of values (T, n), shape (n, n); beyond `WIDEST` its diagonal, shape (n,)."""
    return values.t() @ values if values.shape[1] <= WIDEST else (values**2).sum(0)


def _damped_solve(factor: Tensor, right: Tensor, damping: float) -> Tensor:
    """(factor + √damping · (mean eigenvalue) · I)⁻¹ · right; the two factors together damp F."""
    root = math.sqrt(damping)
    if factor.dim() == 1:
        return right / (factor + root * factor.mean())[:, None]
    identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
    damped = factor + root * factor.diagonal().mean() * identity
    return torch.cholesky_solve(right, torch.linalg.cholesky(damped))


def _per_token(values: Tensor) -> Tensor:
    """(B, L, …, F) → (B·L, F): heads that share a weight have their gradients added up."""
    tokens = values.flatten(0, 1)
    return tokens.reshape(len(tokens), -1, values.shape[-1]).sum(1)


def _diagonal(module: nn.Module, entered: Tensor, delta: Tensor) -> Tensor:
    """Σ_t (∂ℓ_t/∂W)² of the weight of an embedding or norm."""
    weight = dict(module.named_parameters(recurse=False))["weight"]
    if weight.dim() == 2 and not isinstance(module, nn.Embedding):  # GPT-2's, (inputs, outputs)
        return (entered.flatten(0, -2).to(delta.dtype) ** 2).t() @ delta.flatten(0, -2) ** 2
    zero: Callable[[Tensor], Tensor] = torch.zeros_like
    along = {name: zero(p) for name, p in module.named_parameters(recurse=False)} | {
        "weight": torch.ones_like(weight)
    }
    slope = derivative_along(module, entered, along)
    squares = _per_token(slope.to(delta.dtype) * delta) ** 2
    if not isinstance(module, nn.Embedding):
        return squares.sum(0)
    return torch.zeros_like(weight, dtype=squares.dtype).index_add_(0, entered.flatten(), squares)


@torch.no_grad()
def sample_targets(
    hidden: Tensor, head: Head, generator: torch.Generator, *, tile: int | None = None
) -> Tensor:
    """A token drawn from π at each of the N states, shape (N,)."""
    parts = [
        torch.multinomial(torch.softmax(head.logits(states), dim=-1), 1, generator=generator)[:, 0]
        for states in hidden.split(tile or tile_of(head))
    ]
    return torch.cat(parts)


@torch.no_grad()
def head_fisher_diagonal(hidden: Tensor, head: Head, target: Tensor, *, tile: int | None = None) -> Tensor:
    """Σ_t (∂ log π(target_t) / ∂W)² for the head's matrix W, shape (V, d)."""
    tile = tile or tile_of(head)
    total = torch.zeros_like(head.weight, dtype=torch.promote_types(head.weight.dtype, torch.float32))
    for start in range(0, len(target), tile):
        part = slice(start, start + tile)
        logits = head.logits(hidden[part])
        change = scaled_by(less_target(torch.softmax(logits, -1), target[part, None]), head.slope(logits))
        total.addmm_(change.square_().t(), hidden[part].to(total.dtype) ** 2)
    return total
