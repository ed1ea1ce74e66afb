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
    """Return the layers that have trainable parameters of their own, by name.

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
    """Whether the output is known to be affine in the layer's weights, whatever the input."""
    names = {name for name, _ in module.named_parameters(recurse=False)}
    is_known = (
        isinstance(module, nn.Linear | nn.LayerNorm)
        or _is_lookup(module)
        or "RMSNorm" in type(module).__name__
        or _is_transposed(module)
    )
    return is_known and names <= {"weight", "bias"}


def _is_lookup(module: nn.Module) -> bool:
    """Whether it looks up rows of a matrix, or (Gemma's) a multiple of them.

    Other embeddings shift positions or have a norm.
    """
    is_plain = type(module).forward is nn.Embedding.forward
    is_scaled = "ScaledWordEmbedding" in type(module).__name__
    return isinstance(module, nn.Embedding) and (is_plain or is_scaled)


def _is_transposed(module: nn.Module) -> bool:
    """Whether it is GPT-2's linear layer, whose weight is (inputs, outputs)."""
    return type(module).__name__ == "Conv1D"


def weight_dtype(module: nn.Module) -> torch.dtype:
    """Return the dtype of a layer's own weights."""
    return next(module.parameters(recurse=False)).dtype


def directional_derivative(
    module: nn.Module, inputs: Tensor, direction: Mapping[str, Tensor | None]
) -> Tensor:
    """Compute the derivative by τ of layer(x; W + τG), for a layer that is affine in its weights.

    Args:
        module: Linear, embedding or norm layer.
        inputs: x.
        direction: G for each of its parameters; None: zero.

    Returns:
        Of the layer's output's shape.
    """
    tangents: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters(recurse=False):
        tensor = direction[name]
        tangents[name] = torch.zeros_like(parameter) if tensor is None else tensor
    weight = tangents["weight"]
    if isinstance(module, nn.Linear) or _is_transposed(module):
        # Linear in (W, b): the derivative is the layer with G in their place.
        matrix = weight.t() if _is_transposed(module) else weight
        return F.linear(inputs.to(weight.dtype), matrix, tangents.get("bias"))
    if isinstance(module, nn.Embedding):
        rows: Tensor = functional_call(module, tangents, (inputs,))
        # Autograd drops the padding row's gradient, so training does too (in SmolLM2 that is <|im_end|>).
        return rows if module.padding_idx is None else rows * (inputs != module.padding_idx)[..., None]
    return _norm_derivative(module, inputs, tangents)


def _norm_derivative(module: nn.Module, inputs: Tensor, direction: dict[str, Tensor]) -> Tensor:
    """Compute norm(x; G) − norm(x; 0), of the output's shape.

    A norm may add a constant to its weight (Gemma: 1 + w), which the difference takes out again. Beside a one
    a small G is lost, in half precision altogether: so G has size one meanwhile, in float32.
    """
    exact = torch.promote_types(direction["weight"].dtype, torch.float32)
    size = torch.stack([tensor.abs().max() for tensor in direction.values()]).max().to(exact)
    divisor = size.clamp(min=torch.finfo(exact).tiny)
    unit = {name: tensor / divisor for name, tensor in direction.items()}
    zero = {name: torch.zeros_like(tensor) for name, tensor in unit.items()}
    change = functional_call(module, unit, (inputs.to(exact),))
    constant = functional_call(module, zero, (inputs.to(exact),))
    return (change - constant) * size  # type: ignore[no-any-return]


def weight_gradients(module: nn.Module, inputs: Tensor, delta: Tensor) -> dict[str, Tensor]:
    """Compute ∂ Σ_t δ_t · layer(x_t; W) / ∂W of a layer's own parameters.

    Args:
        module: Linear, embedding or norm layer.
        inputs: x.
        delta: δ, of its output's shape.

    Returns:
        By the parameters' names in the layer, of their shapes.
    """
    if isinstance(module, nn.Linear):
        # One line a token: x (T, inputs) and δ (T, outputs), so that ∂/∂W = δᵀ x.
        tokens = inputs.flatten(0, -2)
        deltas = delta.flatten(0, -2)
        gradients = {"weight": deltas.t() @ tokens.to(deltas.dtype)}
        if module.bias is not None:
            gradients["bias"] = deltas.sum(0)
        return gradients
    with torch.enable_grad():
        weights = {
            name: p.detach().requires_grad_(True) for name, p in module.named_parameters(recurse=False)
        }
        output = functional_call(module, weights, (inputs,))
        values = torch.autograd.grad(output, list(weights.values()), delta.to(output.dtype))
    return dict(zip(weights, values, strict=True))
