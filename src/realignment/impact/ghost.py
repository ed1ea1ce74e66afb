"""What a backward knows of every pair's gradient without forming one: layer inputs × output gradients."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from realignment.impact.layers import (
    ImpactError,
    derivative_along,
    entered_dtype,
    trained_layers,
    weight_gradients,
)
from realignment.likelihood.backbone import backbone

Gradient = dict[str, Tensor]
"""∂/∂θ by parameter name, for the trainable parameters."""


Consume = Callable[[str, nn.Module, Tensor, Tensor], None]
"""Name and module of a trained layer, its input x (B, L, …), and δ = ∂ℓ/∂y of its output y (B, L, …).

Beyond (B, L, F) there may be heads, (B, L, H, F): norms of queries and keys have one weight for all of them.
"""


class LayerPasses:
    """While it is open, a backward hands (x, δ) of every trained layer over, instead of weight gradients.

    A layer y = layer(x; W) is affine in its weights, so all that a pair's gradient consists of are its
    tokens' x and δ: its inner product with a direction and its share in a weighted sum both follow from them.
    Tokens of different pairs never meet, so each token's (x, δ) belongs to one pair.

    x is kept as autograd keeps it, so that under gradient checkpointing it is computed again, not held.

    The output head is applied outside its module and is not seen here.

    Args:
        model: Its trainable parameters are θ.
        shape: (B, L) of the rows.
        consume: Called in the backward, once for every use of a layer.

    Raises:
        ImpactError: On entering, where a trainable layer is not affine in its weights or not known to be.
    """

    def __init__(self, model: nn.Module, shape: tuple[int, int], consume: Consume) -> None:
        self._model, self._shape, self._consume = model, shape, consume
        self._layers: dict[str, nn.Module] = {}
        self._one_less: dict[str, torch.Size] = {}
        self._hooks: list[Any] = []
        self._frozen: list[nn.Parameter] = []

    def __enter__(self) -> "LayerPasses":
        self._layers = trained_layers(self._model)
        for name, module in self._layers.items():
            self._hooks.append(module.register_forward_hook(self._listen(name), with_kwargs=True))
            self._frozen += [p for p in module.parameters(recurse=False) if p.requires_grad]
        for parameter in self._frozen:
            parameter.requires_grad_(False)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()
        for parameter in self._frozen:
            parameter.requires_grad_(True)

    def _listen(self, name: str) -> Callable[..., Tensor | None]:
        def hook(
            module: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Any], output: Tensor
        ) -> Tensor | None:
            # A consumer may run the layer again, which is no part of the model's pass.
            if not torch.is_grad_enabled():
                return None
            if len(inputs) != 1 or named:
                raise ImpactError(
                    f"No impact score for {name} ({type(module).__name__}): it is called with "
                    f"{len(inputs) + len(named)} arguments, expected its input alone. Train with LoRA, or "
                    "freeze this layer."
                )
            if not output.requires_grad:
                output.requires_grad_(True)
            hand_over = lambda entered, delta: self._hand_over(name, module, entered, delta)  # noqa: E731
            return _Tap.apply(output, inputs[0].detach(), hand_over)  # type: ignore[no-any-return, no-untyped-call]

        return hook

    @torch.no_grad()
    def _hand_over(self, name: str, module: nn.Module, entered: Tensor, delta: Tensor) -> None:
        axis = self._token_axis(name, delta.shape)
        if axis > 1:  # Gemma 3 has heads before tokens where it normalises queries and keys
            entered, delta = entered.movedim(axis, 1), delta.movedim(axis, 1)
        self._consume(name, module, entered, delta)

    def _token_axis(self, name: str, shape: torch.Size) -> int:
        """Which axis of a layer's output counts the L tokens: the one so long; of several, by a probe."""
        rows, tokens = self._shape
        axes = [axis for axis in range(1, len(shape) - 1) if shape[0] == rows and shape[axis] == tokens]
        if len(axes) > 1:
            self._one_less = self._one_less or _output_shapes(self._model, self._layers, tokens - 1)
            probed = self._one_less.get(name, ())
            axes = [axis for axis in axes if len(probed) == len(shape) and probed[axis] == tokens - 1]
        if len(axes) != 1:
            raise ImpactError(
                f"No impact score for {name}: its output has shape {tuple(shape)}, expected an entry for "
                f"each of {self._shape} tokens. Such layers mix tokens (mixture of experts). Train a LoRA "
                "that leaves it out of `target_modules`."
            )
        return axes[0]


def _output_shapes(model: nn.Module, layers: Mapping[str, nn.Module], tokens: int) -> dict[str, torch.Size]:
    """Shapes of the layers' outputs for one row of so many tokens, by a forward pass of its own."""
    found: dict[str, torch.Size] = {}

    def listen(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: found.update({name: output.shape})

    hooks = [module.register_forward_hook(listen(name)) for name, module in layers.items()]
    try:
        body = backbone(model)
        body(input_ids=torch.zeros(1, tokens, dtype=torch.long, device=body.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return found


class _Tap(torch.autograd.Function):
    """The identity on a layer's output; its backward shows (x, δ)."""

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, entered: Tensor, hand_over: Callable[[Tensor, Tensor], None]
    ) -> Tensor:
        ctx.save_for_backward(entered)
        ctx.hand_over = hand_over
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        ctx.hand_over(*ctx.saved_tensors, grads[0])
        return grads[0], None, None


class GhostContraction:
    """Consumes layer passes into ⟨G, ∇_θ ℓᵢ⟩ of every pair i: Σ_t δ_t · (layer(x_t; G) − layer(x_t; 0)).

    One pass of x through G instead of a gradient of the size of W for each pair. Layers along which G is zero
    cost nothing: a fresh LoRA has B = 0, so the gradient of A, and G with it, vanishes.

    Attributes:
        scores: Shape (P,), in float32 or better; zero before any backward.
        layers: Layers that took part.
    """

    def __init__(self, direction: Mapping[str, Tensor], owner: Tensor, pairs: int) -> None:
        self.layers = 0
        self._owner = owner.flatten()
        self._direction = {name: along for name, along in direction.items() if bool(along.any())}
        exact = max((along.dtype for along in direction.values()), key=lambda d: d.itemsize, default=None)
        self.scores = torch.zeros(pairs, dtype=exact or torch.float32, device=owner.device)

    def __call__(self, name: str, module: nn.Module, entered: Tensor, delta: Tensor) -> None:
        """Add one layer's share."""
        self.layers += 1
        names = [key for key, _ in module.named_parameters(recurse=False)]
        along = {key: self._direction.get(f"{name}.{key}") for key in names}
        if all(value is None for value in along.values()):
            return
        weights = {
            key: None if value is None else value.to(entered_dtype(module)) for key, value in along.items()
        }
        change = derivative_along(module, entered, weights)
        change, delta = (values.flatten(0, 1).flatten(1) for values in (change, delta))
        per_token = torch.linalg.vecdot(change, delta.to(change.dtype))
        self.scores.index_add_(0, self._owner, per_token.to(self.scores.dtype))


class KeptPasses:
    """Consumes layer passes by keeping them, until it is known how much each pair is to count."""

    def __init__(self) -> None:
        self._passes: list[tuple[str, nn.Module, Tensor, Tensor]] = []

    def __call__(self, name: str, module: nn.Module, entered: Tensor, delta: Tensor) -> None:
        """Keep one layer's pass."""
        self._passes.append((name, module, entered, delta))

    @torch.no_grad()
    def scores(self, direction: Mapping[str, Tensor], owner: Tensor, pairs: int) -> Tensor:
        """⟨G, ∇_θ ℓᵢ⟩ of every pair, shape (P,); see `GhostContraction`."""
        contraction = GhostContraction(direction, owner, pairs)
        for kept in self._passes:
            contraction(*kept)
        return contraction.scores

    def weighted_gradients(self, multipliers: Tensor) -> Gradient:
        """Σ_t m_t ∇_θ of every token's share: the gradient with pair i counted m times.

        Args:
            multipliers: m of each place, shape (B, L).
        """
        total: Gradient = {}
        for name, module, entered, delta in self._passes:
            scaled = delta * multipliers.to(delta.dtype)[(..., *(None,) * (delta.dim() - 2))]
            for key, gradient in weight_gradients(module, entered, scaled).items():
                full = f"{name}.{key}"
                total[full] = total[full] + gradient if full in total else gradient
        return total
