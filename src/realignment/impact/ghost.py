"""Every pair's gradient from one backward, without forming any: layer inputs × output gradients."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from realignment.impact.layers import (
    ImpactError,
    directional_derivative,
    trained_layers,
    weight_dtype,
    weight_gradients,
)
from realignment.likelihood.backbone import backbone

Gradient = dict[str, Tensor]
"""∂/∂θ by parameter name, for the trainable parameters."""


PassConsumer = Callable[[str, nn.Module, Tensor, Tensor], None]
"""Called with name and module of a trained layer, its input x (B, L, …), and δ = ∂ℓ/∂y of its output y
(B, L, …).

Beyond (B, L, F) there may be heads, (B, L, H, F): norms of queries and keys have one weight for all of them.
"""


class LayerPasses:
    """While it is open, a backward passes (x, δ) of every trained layer on, instead of weight gradients.

    A layer y = layer(x; W) is affine in its weights, so all that a pair's gradient consists of are its
    tokens' x and δ: its inner product with a direction and its share in a weighted sum both follow from them.
    Tokens of different pairs never meet, so each token's (x, δ) belongs to one pair.

    x is saved as autograd saves it, so that under activation checkpointing it is computed again, not held.

    The output head is applied outside its module and is not seen here.

    Args:
        model: Its trainable parameters are θ.
        shape: (B, L) of the rows.
        consume: Called in the backward, once for every use of a layer.

    Raises:
        ImpactError: On entering, where a trainable layer is not affine in its weights or not known to be.
    """

    def __init__(self, model: nn.Module, shape: tuple[int, int], consume: PassConsumer) -> None:
        self._model = model
        self._shape = shape
        self._consume = consume
        self._layers: dict[str, nn.Module] = {}
        self._probe_shapes: dict[str, torch.Size] = {}
        self._hooks: list[Any] = []
        self._frozen: list[nn.Parameter] = []

    def __enter__(self) -> "LayerPasses":
        self._layers = trained_layers(self._model)
        for name, module in self._layers.items():
            self._hooks.append(module.register_forward_hook(self._make_hook(name), with_kwargs=True))
            self._frozen += [p for p in module.parameters(recurse=False) if p.requires_grad]
        # Frozen meanwhile, so that autograd forms no weight gradients: (x, δ) stand for them.
        for parameter in self._frozen:
            parameter.requires_grad_(False)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()
        for parameter in self._frozen:
            parameter.requires_grad_(True)

    def _make_hook(self, name: str) -> Callable[..., Tensor | None]:
        """Make the forward hook that puts a capture behind the layer's output."""

        def hook(
            module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any], output: Tensor
        ) -> Tensor | None:
            # A consumer may run the layer again, which is no part of the model's pass.
            if not torch.is_grad_enabled():
                return None
            if len(args) != 1 or kwargs:
                raise ImpactError(
                    f"No impact score for {name} ({type(module).__name__}): it is called with "
                    f"{len(args) + len(kwargs)} arguments, expected its input alone. Train with LoRA, or "
                    "freeze this layer."
                )
            # With all trained parameters frozen, the first layer's output would have no backward.
            if not output.requires_grad:
                output.requires_grad_(True)
            consume = lambda inputs, delta: self._consume_pass(name, module, inputs, delta)  # noqa: E731
            return _CapturePass.apply(output, args[0].detach(), consume)  # type: ignore[no-any-return, no-untyped-call]

        return hook

    @torch.no_grad()
    def _consume_pass(self, name: str, module: nn.Module, inputs: Tensor, delta: Tensor) -> None:
        """Pass (x, δ) on, with tokens on the second axis."""
        axis = self._token_axis(name, delta.shape)
        if axis > 1:  # Gemma 3 has heads before tokens where it normalises queries and keys
            inputs = inputs.movedim(axis, 1)
            delta = delta.movedim(axis, 1)
        self._consume(name, module, inputs, delta)

    def _token_axis(self, name: str, shape: torch.Size) -> int:
        """Find the axis of a layer's output that counts the L tokens: by its length, or else by a probe."""
        rows, tokens = self._shape
        axes = [axis for axis in range(1, len(shape) - 1) if shape[0] == rows and shape[axis] == tokens]
        if len(axes) > 1:
            # As many heads as tokens: with one token less, only the axis of tokens is shorter.
            if not self._probe_shapes:
                self._probe_shapes = _output_shapes(self._model, self._layers, tokens - 1)
            probe = self._probe_shapes.get(name, ())
            axes = [axis for axis in axes if len(probe) == len(shape) and probe[axis] == tokens - 1]
        if len(axes) != 1:
            raise ImpactError(
                f"No impact score for {name}: its output has shape {tuple(shape)}, expected an entry for "
                f"each of {self._shape} tokens. Such layers mix tokens (mixture of experts). Train a LoRA "
                "that leaves it out of `target_modules`."
            )
        return axes[0]


def _output_shapes(model: nn.Module, layers: Mapping[str, nn.Module], tokens: int) -> dict[str, torch.Size]:
    """Return shapes of the layers' outputs for one row of so many tokens, by a forward pass of its own."""
    shapes: dict[str, torch.Size] = {}

    def make_hook(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: shapes.update({name: output.shape})

    hooks = [module.register_forward_hook(make_hook(name)) for name, module in layers.items()]
    try:
        body = backbone(model)
        body(input_ids=torch.zeros(1, tokens, dtype=torch.long, device=body.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


class _CapturePass(torch.autograd.Function):
    """The identity on a layer's output; its backward passes (x, δ) to a consumer."""

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, inputs: Tensor, consume: Callable[[Tensor, Tensor], None]
    ) -> Tensor:
        # Saved, not an attribute: activation checkpointing then drops x and computes it again.
        ctx.save_for_backward(inputs)
        ctx.consume = consume
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (inputs,) = ctx.saved_tensors
        ctx.consume(inputs, grads[0])
        return grads[0], None, None


class GhostContraction:
    """Contracts layer passes to ⟨G, ∇_θ ℓᵢ⟩ of every pair i: Σ_t δ_t · (layer(x_t; G) − layer(x_t; 0)).

    One pass of x through G instead of a gradient of the size of W for each pair. Layers along which G is zero
    cost nothing: a fresh LoRA has B = 0, so the gradient of A, and G with it, vanishes.

    Attributes:
        scores: Shape (P,), in float32 or better; zero before any backward.
        layers: Layers that took part.
    """

    def __init__(self, direction: Mapping[str, Tensor], owner: Tensor, pairs: int) -> None:
        self.layers = 0
        self._owner = owner.flatten()
        self._direction = {name: tensor for name, tensor in direction.items() if bool(tensor.any())}
        dtypes = [tensor.dtype for tensor in direction.values()]
        exact = max(dtypes, key=lambda dtype: dtype.itemsize, default=torch.float32)
        self.scores = torch.zeros(pairs, dtype=exact, device=owner.device)

    def __call__(self, name: str, module: nn.Module, inputs: Tensor, delta: Tensor) -> None:
        """Add one layer's share."""
        self.layers += 1
        dtype = weight_dtype(module)
        direction: dict[str, Tensor | None] = {}
        for key, _ in module.named_parameters(recurse=False):
            tensor = self._direction.get(f"{name}.{key}")
            direction[key] = None if tensor is None else tensor.to(dtype)
        if all(tensor is None for tensor in direction.values()):
            return
        # dy: how the layer's output changes along G, shape (B, L, …) as δ.
        change = directional_derivative(module, inputs, direction)
        # δ · dy of each token, (B·L,): heads and features are summed over.
        change = change.flatten(0, 1).flatten(1)
        per_token = torch.linalg.vecdot(change, delta.flatten(0, 1).flatten(1).to(change.dtype))
        self.scores.index_add_(0, self._owner, per_token.to(self.scores.dtype))


class RecordedPasses:
    """Records layer passes, for the weight of each pair follows from all of them."""

    def __init__(self) -> None:
        self._passes: list[tuple[str, nn.Module, Tensor, Tensor]] = []

    def __call__(self, name: str, module: nn.Module, inputs: Tensor, delta: Tensor) -> None:
        """Record one layer's pass."""
        self._passes.append((name, module, inputs, delta))

    @torch.no_grad()
    def scores(self, direction: Mapping[str, Tensor], owner: Tensor, pairs: int) -> Tensor:
        """Compute ⟨G, ∇_θ ℓᵢ⟩ of every pair; see `GhostContraction`.

        Args:
            direction: G by parameter name.
            owner: Which pair a place belongs to, shape (B, L).
            pairs: P.

        Returns:
            Shape (P,).
        """
        contraction = GhostContraction(direction, owner, pairs)
        for layer_pass in self._passes:
            contraction(*layer_pass)
        return contraction.scores

    def weighted_gradients(self, multipliers: Tensor) -> Gradient:
        """Compute Σ_t m_t ∇_θ of every token's share: the gradient with pair i counted m times.

        Args:
            multipliers: m of each place, shape (B, L).

        Returns:
            By parameter name, of the parameters' shapes.
        """
        total: Gradient = {}
        for name, module, inputs, delta in self._passes:
            # (B, L) → (B, L, 1, …): one factor for all features of a token. Gradients are linear in δ.
            expanded = multipliers.to(delta.dtype)[(..., *(None,) * (delta.dim() - 2))]
            for key, gradient in weight_gradients(module, inputs, delta * expanded).items():
                parameter = f"{name}.{key}"
                # A layer may be used more than once in a pass.
                total[parameter] = total[parameter] + gradient if parameter in total else gradient
        return total
