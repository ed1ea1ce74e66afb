"""Curvature for the impact weights: the gold gradient preconditioned once, H⁻¹ g_J; the cost per pair stays.

The marginal gain of a pair is −g_Jᵀ H⁻¹ g_i (TRACE, arXiv:2511.02623, bi-level problem); the paper takes H ≈
γI. Here H is the Fisher information of the model's own next-token distribution at the response tokens
(targets sampled from the model, so it is the Fisher, not its empirical stand-in), approximated per weight
matrix.
"""

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from realignment.impact.ghost import Gradient, LayerPasses
from realignment.impact.layers import directional_derivative
from realignment.likelihood.backbone import head_name, output_head, scoring_mode
from realignment.likelihood.head import Head, scale_in_place, subtract_one_hot, tile_size
from realignment.likelihood.log_probs import response_hidden_states
from realignment.likelihood.packing import Rows
from realignment.likelihood.tiled import token_log_probabilities

Curvature = Literal["identity", "diagonal_fisher", "kfac"]

MAX_FACTOR_WIDTH = 4096
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
    """Compute (F + λ)⁻¹ G, with F estimated on the given pairs.

    ``diagonal_fisher``: F = Σ_t (δ_t ∘ δ_t)ᵀ (x_t ∘ x_t) for each matrix. ``kfac``: F = T · S ⊗ A with A =
    mean x xᵀ and S = mean δ δᵀ over T tokens (Martens & Grosse 2015, arXiv:1503.05671; a sample is every
    token on which a likelihood depends, so padding is none), for linear layers; biases, norms, embeddings,
    the output head and factors wider than `MAX_FACTOR_WIDTH` keep the diagonal. λ is relative: `damping`
    times the mean diagonal of F (for ``kfac`` its root for each factor), because only the direction of the
    result matters.

    Args:
        model: Its trainable parameters are θ.
        batches: Pairs on which F is estimated.
        direction: G, the gold gradient.
        curvature: Which F; ``identity`` returns G.
        damping: Relative λ, > 0.
        seed: Seed of the sampled targets.

    Returns:
        By parameter name, of the direction's shapes. Where G is zero (A of a fresh LoRA) F is not estimated,
        and where F is zero throughout, so is G: it is left as it is.
    """
    if curvature == "identity":
        return direction
    names = {name for name, tensor in direction.items() if bool(tensor.any())}
    fisher = _Fisher(has_factors=curvature == "kfac", names=names)
    head = output_head(model)
    trained_head = head_name(model, head)
    with scoring_mode(model):
        generator = torch.Generator(head.weight.device).manual_seed(seed)
        for rows in batches:
            # One backward of Σ_t log π(ŷ_t), ŷ_t drawn from the model: (x, δ) of every layer go to `fisher`.
            with LayerPasses(model, rows.shape, fisher.accumulate):
                hidden = response_hidden_states(model, rows)  # (N, d)
                target = sample_targets(hidden.detach(), head, generator)  # (N,)
                token_log_probabilities(hidden, head, target).sum().backward()
            # The head is applied outside its module, so its passes are not seen.
            if trained_head is not None and trained_head in names:
                fisher.add(trained_head, head_fisher_diagonal(hidden.detach(), head, target))
    return {name: fisher.solve(name, tensor, damping) for name, tensor in direction.items()}


@dataclass
class _Fisher:
    """Sums over tokens, by parameter name: diagonals; of linear layers the two factors and T, the tokens.

    Attributes:
        has_factors: Whether linear layers have them.
        names: The parameters that F is estimated for.
        diagonals: Shape of the parameter.
        inputs: Σ xxᵀ, or its diagonal.
        outputs: Σ δδᵀ, or its diagonal.
        tokens: T.
    """

    has_factors: bool
    names: AbstractSet[str]
    diagonals: dict[str, Tensor] = field(default_factory=dict)
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    tokens: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, diagonal: Tensor) -> None:
        """Add to a parameter's diagonal."""
        _add(self.diagonals, name, diagonal)

    def accumulate(self, name: str, module: nn.Module, inputs: Tensor, delta: Tensor) -> None:
        """Add the share of one layer pass (x, δ), for each of the layer's parameters."""
        delta = delta.to(torch.promote_types(delta.dtype, torch.float32))
        for key, _ in module.named_parameters(recurse=False):
            parameter = f"{name}.{key}"
            if parameter not in self.names:
                continue
            if key == "bias":
                self.add(parameter, (_per_token(delta) ** 2).sum(0))
            elif not isinstance(module, nn.Linear):
                self.add(parameter, _diagonal(module, inputs, delta))
            else:
                # One line a token: x (T, inputs) and δ (T, outputs).
                tokens = inputs.flatten(0, -2).to(delta.dtype)
                self._accumulate_linear(parameter, tokens, delta.flatten(0, -2))

    def _accumulate_linear(self, name: str, tokens: Tensor, deltas: Tensor) -> None:
        """Add the share of a linear layer's weight."""
        if not self.has_factors:
            self.add(name, (deltas**2).t() @ tokens**2)
            return
        # Padding and the last token of a response predict nothing: their δ is zero, and they are no sample.
        reached = deltas.any(-1, keepdim=True).to(deltas.dtype)  # (T, 1)
        _add(self.inputs, name, _second_moment(tokens * reached))
        _add(self.outputs, name, _second_moment(deltas))
        _add(self.tokens, name, reached.sum())

    def solve(self, name: str, direction: Tensor, damping: float) -> Tensor:
        """Compute (F + λ)⁻¹ G of one parameter, of its shape."""
        if name in self.inputs:
            return self._solve_factors(name, direction, damping)
        diagonal = self.diagonals.get(name)
        if diagonal is None or not bool(diagonal.any()):
            return direction
        return (direction / (diagonal + damping * diagonal.mean())).to(direction.dtype)

    def _solve_factors(self, name: str, direction: Tensor, damping: float) -> Tensor:
        """(S ⊗ A)⁻¹ vec(G) = vec(S⁻¹ G A⁻¹): two solves, and no matrix of F's size."""
        outputs = self.outputs[name]
        inputs = self.inputs[name]
        if not bool(outputs.any()) or not bool(inputs.any()):
            return direction
        # F = T · S ⊗ A is Σ δδᵀ ⊗ Σ xxᵀ / T: a sum over tokens, as the diagonals of other parameters are.
        left = _damped_solve(outputs / self.tokens[name], direction.to(outputs.dtype), damping)
        return _damped_solve(inputs, left.t(), damping).t().to(direction.dtype)


def _add(total: dict[str, Tensor], name: str, value: Tensor) -> None:
    total[name] = total[name] + value if name in total else value


def _second_moment(values: Tensor) -> Tensor:
    """Compute Σ_t v vᵀ of values (T, n), shape (n, n); beyond `MAX_FACTOR_WIDTH` its diagonal, shape (n,)."""
    return values.t() @ values if values.shape[1] <= MAX_FACTOR_WIDTH else (values**2).sum(0)


def _damped_solve(factor: Tensor, right: Tensor, damping: float) -> Tensor:
    """Compute (factor + √damping · (mean eigenvalue) · I)⁻¹ · right; the two factors together damp F."""
    root = math.sqrt(damping)
    if factor.dim() == 1:
        return right / (factor + root * factor.mean())[:, None]
    # The trace is the sum of the eigenvalues, so the mean diagonal is their mean.
    identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
    damped = factor + root * factor.diagonal().mean() * identity
    return torch.cholesky_solve(right, torch.linalg.cholesky(damped))


def _per_token(values: Tensor) -> Tensor:
    """Turn (B, L, …, F) into (B·L, F): heads that share a weight have their gradients added up."""
    tokens = values.flatten(0, 1)
    return tokens.reshape(len(tokens), -1, values.shape[-1]).sum(1)


def _diagonal(module: nn.Module, inputs: Tensor, delta: Tensor) -> Tensor:
    """Compute Σ_t (∂ℓ_t/∂W)² of the weight of an embedding or norm, of the weight's shape."""
    parameters = dict(module.named_parameters(recurse=False))
    weight = parameters["weight"]
    if weight.dim() == 2 and not isinstance(module, nn.Embedding):  # GPT-2's, (inputs, outputs)
        return (inputs.flatten(0, -2).to(delta.dtype) ** 2).t() @ delta.flatten(0, -2) ** 2
    # Element by element, the output is slope · weight + constant; along a direction of ones it is the slope.
    ones: dict[str, Tensor | None] = dict.fromkeys(parameters)
    ones["weight"] = torch.ones_like(weight)
    slope = directional_derivative(module, inputs, ones)
    squares = _per_token(slope.to(delta.dtype) * delta) ** 2  # (B·L, F)
    if not isinstance(module, nn.Embedding):
        return squares.sum(0)
    # An embedding's row gets the squares of the tokens that look it up.
    return torch.zeros_like(weight, dtype=squares.dtype).index_add_(0, inputs.flatten(), squares)


@torch.no_grad()
def sample_targets(
    hidden: Tensor, head: Head, generator: torch.Generator, *, tile: int | None = None
) -> Tensor:
    """Draw a token from π at each of the N states.

    Args:
        hidden: States that predict the tokens, shape (N, d).
        head: The output head.
        generator: Source of randomness, on the states' device.
        tile: Tokens whose logits are held at once; None: by `TILE_BYTES`.

    Returns:
        Token ids, shape (N,).
    """
    targets = []
    for states in hidden.split(tile or tile_size(head)):
        probabilities = torch.softmax(head.logits(states), dim=-1)  # (tile, V)
        targets.append(torch.multinomial(probabilities, 1, generator=generator)[:, 0])
    return torch.cat(targets)


@torch.no_grad()
def head_fisher_diagonal(hidden: Tensor, head: Head, target: Tensor, *, tile: int | None = None) -> Tensor:
    """Compute Σ_t (∂ log π(target_t) / ∂W)² for the head's matrix W.

    Args:
        hidden: States that predict the tokens, shape (N, d).
        head: The output head.
        target: Token ids, shape (N,).
        tile: Tokens whose logits are held at once; None: by `TILE_BYTES`.

    Returns:
        Shape (V, d), in float32 or better.
    """
    tile = tile or tile_size(head)
    total = torch.zeros_like(head.weight, dtype=torch.promote_types(head.weight.dtype, torch.float32))
    for start in range(0, len(target), tile):
        part = slice(start, start + tile)
        logits = head.logits(hidden[part])  # (tile, V)
        q = torch.softmax(logits, -1)
        # ∂ log π(target_t)/∂W = −δ_t h_tᵀ, δ_t = slope · (q_t − 𝟙[target_t]): its square is δ_t² (h_t²)ᵀ.
        delta = scale_in_place(subtract_one_hot(q, target[part, None]), head.slope(logits))
        total.addmm_(delta.square_().t(), hidden[part].to(total.dtype) ** 2)
    return total
