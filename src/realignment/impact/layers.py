"""Layers that are affine in their weights: derivative along a direction, and gradient of the weights."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from realignment.records import RealignmentError


class ImpactError(RealignmentError):
    """Impact scores cannot be computed for this model."""


def trained_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that have trainable parameters of their own, by name.

    Raises:
        ImpactError: One is not affine in its weights, or not known to be.
    """
    layers = {name: module for name, module in model.named_modules() if _is_trained(module)}
    for name, module in layers.items():
        if not _is_affine(module):
            raise ImpactError(
                f"No impact score for the trained weights of {name} ({type(module).__name__}): expected "
                "linear, embedding or norm layers. Train with LoRA, or freeze this layer."
            )
    return layers


def _is_trained(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters(recurse=False))


def _is_affine(module: nn.Module) -> bool:
    kind = type(module).__name__
    names = {name for name, _ in module.named_parameters(recurse=False)}
    known = (
        isinstance(module, nn.Linear | nn.LayerNorm)
        or _is_lookup(module)
        or "RMSNorm" in kind
        or _is_transposed(module)
    )
    return known and names <= {"weight", "bias"}


def _is_lookup(module: nn.Module) -> bool:
    """Rows of a matrix, or (Gemma's) a multiple of them; other embeddings shift positions or have a norm."""
    plain = type(module).forward is nn.Embedding.forward or "ScaledWordEmbedding" in type(module).__name__
    return isinstance(module, nn.Embedding) and plain


def _is_transposed(module: nn.Module) -> bool:
    """Whether it is GPT-2's linear layer, whose weight is (inputs, outputs)."""
    return type(module).__name__ == "Conv1D"


def entered_dtype(module: nn.Module) -> torch.dtype:
    """The dtype of a layer's own weights."""
    return next(module.parameters(recurse=False)).dtype


def derivative_along(module: nn.Module, entered: Tensor, direction: Mapping[str, Tensor | None]) -> Tensor:
    """Derivative by τ of layer(x; W + τG), for a layer that is affine in its weights; of its output's shape.

    Args:
        module: Linear, embedding or norm layer.
        entered: x, its input.
        direction: G for each of its parameters; None: zero.
    """
    zero = {name: torch.zeros_like(p) for name, p in module.named_parameters(recurse=False)}
    along = {name: zero[name] if value is None else value for name, value in direction.items()}
    weight = along["weight"]
    if isinstance(module, nn.Linear) or _is_transposed(module):
        matrix = weight.t() if _is_transposed(module) else weight
        return F.linear(entered.to(weight.dtype), matrix, along.get("bias"))
    if isinstance(module, nn.Embedding):
        rows: Tensor = functional_call(module, along, (entered,))
        # Autograd drops the padding row's gradient, so training does too (in SmolLM2 that is <|im_end|>).
        return rows if module.padding_idx is None else rows * (entered != module.padding_idx)[..., None]
    # A norm may add a constant to its weight (Gemma: 1 + w), which the difference takes out again. Beside a
    # one a small G is lost, in half precision altogether: so G has size one meanwhile, in float32.
    exact = torch.promote_types(weight.dtype, torch.float32)
    size = torch.stack([value.abs().max() for value in along.values()]).max().to(exact)
    unit = {name: value / size.clamp(min=torch.finfo(exact).tiny) for name, value in along.items()}
    none = {name: torch.zeros_like(value) for name, value in unit.items()}
    change, constant = (functional_call(module, weights, (entered.to(exact),)) for weights in (unit, none))
    return (change - constant) * size  # type: ignore[no-any-return]


def weight_gradients(module: nn.Module, entered: Tensor, delta: Tensor) -> dict[str, Tensor]:
    """∂ Σ_t δ_t · layer(x_t; W) / ∂W of a layer's own parameters, by their names in the layer.

    Args:
        module: Linear, embedding or norm layer.
        entered: x, its input.
        delta: δ, of its output's shape.
    """
    names = [name for name, _ in module.named_parameters(recurse=False)]
    if isinstance(module, nn.Linear):
        tokens, deltas = entered.flatten(0, -2), delta.flatten(0, -2)
        found = {"weight": deltas.t() @ tokens.to(deltas.dtype)}
        return found | ({"bias": deltas.sum(0)} if "bias" in names else {})
    with torch.enable_grad():
        weights = {
            name: p.detach().requires_grad_(True) for name, p in module.named_parameters(recurse=False)
        }
        output = functional_call(module, weights, (entered,))
        gradients = torch.autograd.grad(output, list(weights.values()), delta.to(output.dtype))
    return dict(zip(names, gradients, strict=True))
