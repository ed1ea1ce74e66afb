"""Inner products of every row's gradient with one direction, without ever forming a row's gradient."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from realignment.records import RealignmentError


class ImpactError(RealignmentError):
    """Impact scores cannot be computed for this model."""


class GhostContraction:
    """While it is open, a backward adds ⟨G, ∇_θ ℓᵢ⟩ of every row i to `scores`, shape (B,).

    A layer y = layer(x; W) is affine in its weights, so its derivative along G is layer(x; G) − layer(x; 0),
    and row i's inner product is Σ_t δ_it · (layer(x_it; G) − layer(x_it; 0)) with δ = ∂ℓ/∂y: one pass of x
    through G instead of B gradients of the size of W. Rows are independent, because rows are the samples.
    Weight gradients are switched off meanwhile, so the cost is a forward, a backward of the activations, and
    the trained layers once more.

    The output head is applied outside its module and is not seen here; see `impact.impact_scores`.

    Args:
        model: Its trainable parameters are θ.
        direction: G by parameter name.
        shape: (B, L) of the rows.

    Raises:
        ImpactError: On entering, where a trainable layer is not affine in its weights or not known to be.
    """

    def __init__(self, model: nn.Module, direction: Mapping[str, Tensor], shape: tuple[int, int]) -> None:
        self.model, self.direction = model, direction
        self.scores: Tensor | None = None
        self._shape = shape
        self._hooks: list[Any] = []
        self._frozen: list[nn.Parameter] = []

    def __enter__(self) -> "GhostContraction":
        layers = {name: module for name, module in self.model.named_modules() if _is_trained(module)}
        for name, module in layers.items():
            if not _is_affine(module):
                raise ImpactError(
                    f"No impact score for the trained weights of {name} ({type(module).__name__}): expected "
                    "linear, embedding or norm layers. Train with LoRA, or freeze this layer."
                )
        for name, module in layers.items():
            self._hooks.append(module.register_forward_hook(self._keep(name)))
            self._frozen += [p for p in module.parameters(recurse=False) if p.requires_grad]
        for parameter in self._frozen:
            parameter.requires_grad_(False)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()
        for parameter in self._frozen:
            parameter.requires_grad_(True)

    def _keep(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            # `_contract` runs the layer again, which is no part of the model's pass.
            if not torch.is_grad_enabled():
                return
            if not output.requires_grad:
                output.requires_grad_(True)
            entered = inputs[0].detach()
            output.register_hook(lambda delta: self._contract(name, module, entered, delta))

        return hook

    @torch.no_grad()
    def _contract(self, name: str, module: nn.Module, entered: Tensor, delta: Tensor) -> None:
        if delta.shape[:2] != self._shape:
            raise ImpactError(
                f"No impact score for {name}: its output has shape {tuple(delta.shape)}, expected an entry "
                f"for each of {self._shape} tokens. The layer mixes rows (mixture of experts?): leave it out "
                "of `target_modules`."
            )
        weights = {
            key: self.direction[f"{name}.{key}"].to(p.dtype) if f"{name}.{key}" in self.direction else None
            for key, p in module.named_parameters(recurse=False)
        }
        score = (derivative_along(module, entered, weights) * delta).flatten(1)
        per_row = score.sum(1, dtype=torch.promote_types(score.dtype, torch.float32))
        self.scores = per_row if self.scores is None else self.scores + per_row


def _is_trained(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters(recurse=False))


def _is_affine(module: nn.Module) -> bool:
    kind = type(module).__name__
    names = {name for name, _ in module.named_parameters(recurse=False)}
    known = (
        isinstance(module, nn.Linear | nn.Embedding | nn.LayerNorm) or "RMSNorm" in kind or kind == "Conv1D"
    )
    return known and names <= {"weight", "bias"}


def derivative_along(module: nn.Module, entered: Tensor, direction: Mapping[str, Tensor | None]) -> Tensor:
    """Derivative by τ of layer(x; W + τG), for a layer that is affine in its weights; of its output's shape.

    Args:
        module: Linear, embedding or norm layer.
        entered: x, its input.
        direction: G for each of its parameters; None: zero.
    """
    zero = {name: torch.zeros_like(p) for name, p in module.named_parameters(recurse=False)}
    along = {name: zero[name] if value is None else value for name, value in direction.items()}
    if isinstance(module, nn.Linear):
        return F.linear(entered, along["weight"], along.get("bias"))
    if isinstance(module, nn.Embedding):
        change = F.embedding(entered, along["weight"])
        # Autograd drops the padding row's gradient, so training does too (in SmolLM2 that is <|im_end|>).
        return change if module.padding_idx is None else change * (entered != module.padding_idx)[..., None]
    # A norm may add a constant to its weight (Gemma: 1 + w), which the difference takes out again.
    change, constant = (functional_call(module, weights, (entered,)) for weights in (along, zero))
    return change - constant  # type: ignore[no-any-return]
