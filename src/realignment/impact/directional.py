"""Derivatives of log-probabilities along one direction of θ, by forward mode or finite differences."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from realignment.impact.ghost import Gradient
from realignment.impact.layers import ImpactError
from realignment.likelihood.backbone import compute_dtype, head_name, output_head
from realignment.likelihood.head import Head, row_dot, tile_size
from realignment.likelihood.log_probs import (
    response_hidden_states,
    response_log_probabilities,
    sum_per_response,
)
from realignment.likelihood.packing import Rows
from realignment.likelihood.tiled import token_log_probabilities

ADAPTER_STEP = 0.03
FULL_STEP = 1e-3
"""Steps in parameter space with the least error of the finite difference, by measurement: below them rounding
dominates, above them curvature. The loss curves sooner in a model's own weights than in adapters."""


@torch.no_grad()
def forward_mode(model: nn.Module, rows: Rows, direction: Gradient) -> tuple[Tensor, Tensor]:
    """Compute log π(y) and its derivative along the direction, in one forward-mode pass.

    No activations are kept. Attention runs unfused: no fused kernel of torch has a forward-mode rule.

    Args:
        model: In scoring mode.
        rows: The pairs.
        direction: G by parameter name.

    Returns:
        Both of shape (R,).
    """
    head = output_head(model)
    parameters = {name: p.detach() for name, p in model.named_parameters() if name in direction}
    tangents = {
        name: _without_padding_row(model, name, direction[name].to(p.dtype), embedding_alone=True)
        for name, p in parameters.items()
    }
    wrapper = _HiddenStates(model)

    def hidden_states(values: dict[str, Tensor]) -> Tensor:
        named = {f"model.{name}": value for name, value in values.items()}
        return functional_call(wrapper, named, (rows,))  # type: ignore[no-any-return]

    # h and dh, both (N, d). The head is left out: its logits would be N × V, twice.
    with sdpa_kernel(SDPBackend.MATH):
        hidden, hidden_change = jvp(hidden_states, (parameters,), (tangents,))  # type: ignore[misc]
    weight_change = direction.get(head_name(model, head) or "")
    derivatives = log_probability_derivatives(
        hidden,
        head.detach(),
        rows.target,
        hidden_change=hidden_change,
        weight_change=None if weight_change is None else weight_change.to(hidden.dtype),
    )
    tokens = token_log_probabilities(hidden, head.detach(), rows.target)
    return sum_per_response(tokens, rows), sum_per_response(derivatives, rows)


class _HiddenStates(nn.Module):
    """A module whose forward is `response_hidden_states`, so that its parameters can be replaced."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: Rows) -> Tensor:
        return response_hidden_states(self.model, rows)


@torch.no_grad()
def finite_differences(
    model: nn.Module, rows: Rows, direction: Gradient, *, step: float | None = None
) -> tuple[Tensor, Tensor]:
    """Compute log π(y) and its derivative along the direction, from two forwards at θ ± step · G/‖G‖.

    The error of both falls with the square of the step until rounding takes over.

    Args:
        model: In scoring mode; its parameters are put back exactly.
        rows: The pairs.
        direction: G by parameter name.
        step: Parameter-space length; None: `ADAPTER_STEP`, or `FULL_STEP` where the head is trained.

    Returns:
        Both of shape (R,).

    Raises:
        ImpactError: The model computes in half precision.
    """
    dtype = compute_dtype(model)
    if torch.finfo(dtype).eps > torch.finfo(torch.float32).eps:
        raise ImpactError(
            f"Finite differences in {dtype} are rounding noise (measured: rank correlation with the exact "
            "scores −0.6 to 0.03), expected float32. Use `impact.engine: ghost`, which is exact in any "
            "precision, or `model.dtype: float32` without `training.autocast`."
        )
    if step is None:
        step = FULL_STEP if output_head(model).weight.requires_grad else ADAPTER_STEP
    norm = torch.sqrt(sum((g.double() ** 2).sum() for g in direction.values())).item()  # type: ignore[arg-type]
    if norm == 0:
        logprobs = response_log_probabilities(model, rows)
        return logprobs, torch.zeros_like(logprobs)
    # Parameters move by ± scale · G, which has length `step`; the derivative is by τ in θ + τG.
    scale = step / norm
    with _perturbed(model, direction, scale):
        forward = response_log_probabilities(model, rows)  # (R,)
    with _perturbed(model, direction, -scale):
        backward = response_log_probabilities(model, rows)
    return (forward + backward) / 2, (forward - backward) / (2 * step / norm)


@contextmanager
def _perturbed(model: nn.Module, direction: Mapping[str, Tensor], scale: float) -> Iterator[None]:
    """Move the parameters by scale · G, and afterwards put the very same bits back."""
    parameters = {name: p for name, p in model.named_parameters() if name in direction}
    originals = {name: p.detach().clone() for name, p in parameters.items()}
    try:
        for name, p in parameters.items():
            p.data.add_(_without_padding_row(model, name, direction[name].to(p.dtype)), alpha=scale)
        yield
    finally:
        for name, p in parameters.items():
            p.data.copy_(originals[name])


def _without_padding_row(
    model: nn.Module, name: str, direction: Tensor, *, embedding_alone: bool = False
) -> Tensor:
    """Set a direction to zero in an embedding's padding row, whose gradient autograd drops in training.

    A matrix that is also the output head keeps the row, whose gradient as part of the head is not dropped;
    moved as one, the two cannot be told apart, so finite differences of a tied embedding count it in both.
    """
    module = model.get_submodule(name.rpartition(".")[0])
    if not isinstance(module, nn.Embedding) or module.padding_idx is None:
        return direction
    is_tied = module.weight is output_head(model).weight
    if is_tied and not embedding_alone:
        return direction
    masked = direction.clone()
    masked[module.padding_idx] = 0
    return masked


@torch.no_grad()
def log_probability_derivatives(
    hidden: Tensor,
    head: Head,
    target: Tensor,
    *,
    hidden_change: Tensor | None = None,
    weight_change: Tensor | None = None,
    tile: int | None = None,
) -> Tensor:
    """Compute the derivative of log π(target_t) where h and W move along given directions.

    dz = slope · (W dh + dW h);  d log π = dz[target] − Σ_v π_v dz_v.

    Args:
        hidden: Shape (N, d).
        head: Its weight is W, shape (V, d).
        target: Token ids, shape (N,).
        hidden_change: dh, shape (N, d); None: zero.
        weight_change: dW, shape (V, d); None: zero.
        tile: Tokens whose logits are held at once; None: by `TILE_BYTES`.

    Returns:
        Shape (N,).
    """
    tile = tile or tile_size(head)
    derivatives = []
    for start in range(0, len(target), tile):
        part = slice(start, start + tile)
        logits = head.logits(hidden[part])
        # dz, shape (tile, V), as the logits.
        change = torch.zeros_like(logits)
        if hidden_change is not None:
            change += hidden_change[part] @ head.weight.t()
        if weight_change is not None:
            change += hidden[part] @ weight_change.t()
        change *= head.slope(logits)
        # The log-softmax's derivative: what the target's logit gains beyond the mean under π.
        mean_change = row_dot(torch.softmax(logits, dim=-1), change)
        derivatives.append(change.gather(1, target[part, None])[:, 0] - mean_change)
    return torch.cat(derivatives)
