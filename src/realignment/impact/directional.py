"""Derivatives of log-probabilities along one direction of θ: forward mode, finite differences."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from realignment.impact.ghost import Gradient
from realignment.impact.layers import ImpactError
from realignment.likelihood.backbone import compute_dtype, head_name, output_head
from realignment.likelihood.head import Head, row_dot, tile_of
from realignment.likelihood.log_probs import (
    response_hidden_states,
    response_log_probabilities,
    sum_per_response,
)
from realignment.likelihood.packing import Rows
from realignment.likelihood.tiled import token_log_probabilities

ADAPTER_STEP, FULL_STEP = 0.03, 1e-3
"""Parameter-space lengths of the finite difference with the least error, by measurement: below them rounding
dominates, above them curvature; a model's own weights curve sooner than adapters."""


@torch.no_grad()
def forward_mode(model: nn.Module, rows: Rows, direction: Gradient) -> tuple[Tensor, Tensor]:
    """Log π(y) and its derivative along the direction, from one forward-mode pass.

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
        name: _without_padding_rows(model, name, direction[name].to(p.dtype), embedding_alone=True)
        for name, p in parameters.items()
    }
    wrapper = _HiddenStates(model)
    inside = {f"model.{name}" for name in parameters}

    def states(values: dict[str, Tensor]) -> Tensor:
        named = {f"model.{name}": value for name, value in values.items()}
        return functional_call(wrapper, {name: named[name] for name in inside}, (rows,))  # type: ignore[no-any-return]

    with sdpa_kernel(SDPBackend.MATH):
        hidden, change = jvp(states, (parameters,), (tangents,))  # type: ignore[misc]
    weight = direction.get(head_name(model, head) or "")
    along = log_probability_derivatives(
        hidden,
        head.detach(),
        rows.target,
        hidden_change=change,
        weight_change=None if weight is None else weight.to(hidden.dtype),
    )
    tokens = token_log_probabilities(hidden, head.detach(), rows.target)
    return sum_per_response(tokens, rows), sum_per_response(along, rows)


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
    """Log π(y) and its derivative along the direction, from two forwards at θ ± step · G/‖G‖.

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
    sides = []
    for sign in (1, -1):
        with _moved(model, direction, sign * step / norm):
            sides.append(response_log_probabilities(model, rows))
    forward, backward = sides
    return (forward + backward) / 2, (forward - backward) / (2 * step / norm)


@contextmanager
def _moved(model: nn.Module, direction: Mapping[str, Tensor], scale: float) -> Iterator[None]:
    """The parameters moved by scale · G, and afterwards the very same bits as before."""
    parameters = {name: p for name, p in model.named_parameters() if name in direction}
    kept = {name: p.detach().clone() for name, p in parameters.items()}
    try:
        for name, p in parameters.items():
            p.data.add_(_without_padding_rows(model, name, direction[name].to(p.dtype)), alpha=scale)
        yield
    finally:
        for name, p in parameters.items():
            p.data.copy_(kept[name])


def _without_padding_rows(
    model: nn.Module, name: str, along: Tensor, *, embedding_alone: bool = False
) -> Tensor:
    """Autograd drops the gradient of an embedding's padding row; here it would count.

    A matrix that is also the output head keeps the row, whose gradient as part of the head is not dropped;
    moved as one, the two cannot be told apart, so finite differences of a tied embedding count it in both.
    """
    module = model.get_submodule(name.rpartition(".")[0])
    tied = isinstance(module, nn.Embedding) and module.weight is output_head(model).weight
    if not isinstance(module, nn.Embedding) or module.padding_idx is None or (tied and not embedding_alone):
        return along
    kept = along.clone()
    kept[module.padding_idx] = 0
    return kept


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
    """Derivative of log π(target_t) where h and W move along given directions, shape (N,).

    dz = slope · (W dh + dW h);  d log π = dz[target] − Σ_v π_v dz_v.

    Args:
        hidden: Shape (N, d).
        head: Its weight is W, shape (V, d).
        target: Token ids, shape (N,).
        hidden_change: dh, shape (N, d); None: zero.
        weight_change: dW, shape (V, d); None: zero.
        tile: Tokens whose logits are held at once; None: by `TILE_BYTES`.
    """
    tile = tile or tile_of(head)
    parts = []
    for start in range(0, len(target), tile):
        part = slice(start, start + tile)
        logits = head.logits(hidden[part])
        change = torch.zeros_like(logits)
        if hidden_change is not None:
            change += hidden_change[part] @ head.weight.t()
        if weight_change is not None:
            change += hidden[part] @ weight_change.t()
        change *= head.slope(logits)
        expected = row_dot(torch.softmax(logits, dim=-1), change)
        parts.append(change.gather(1, target[part, None])[:, 0] - expected)
    return torch.cat(parts)
