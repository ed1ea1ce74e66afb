"""Log-probabilities and exact KL over the vocabulary, tile by tile: N × V logits are never held at once."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from realignment.likelihood.divergence import Reference, ReferenceTile
from realignment.likelihood.head import Head, row_blocks, scale_in_place, subtract_one_hot, tile_size

GRADIENT_ROWS = 8192
"""Words of the vocabulary whose part of the head's gradient is multiplied at once in half precision: the
product is a temporary tensor beside the float32 sum."""


class Likelihoods(NamedTuple):
    """Log-probabilities and KL of N tokens, given what precedes them; each of shape (N,), in nats.

    Attributes:
        logprob: log π_θ(target_t | ·).
        reference: log π_ref(target_t | ·); zero where there is no reference.
        kl: KL(π_ref(· | ·) ‖ π_θ(· | ·)) over the full vocabulary; zero where there is no reference.
    """

    logprob: Tensor
    reference: Tensor
    kl: Tensor


def token_likelihoods(
    hidden: Tensor,
    head: Head,
    target: Tensor,
    reference: Reference | None = None,
    *,
    tile: int | None = None,
) -> Likelihoods:
    """Compute log-probabilities of tokens, and with a reference its own and the exact KL, in one sweep.

    Forward KL, reference first (TRACE, arXiv:2511.02623, eq. 9). The sweep forms what the backward scales,

        ∂ logprob_t / ∂h_t = (𝟙[target_t] − q_t) W,      ∂ KL_t / ∂h_t = (q_t − p_t) W,

    q = π_θ, p = π_ref: one product with W each, and no logits are computed twice. Only a head that is trained
    itself has its logits computed again in the backward.

    Args:
        hidden: States that predict the tokens, shape (N, d).
        head: The policy's output head.
        target: Token ids, shape (N,).
        reference: The reference at the same tokens; None: only log-probabilities.
        tile: Tokens whose logits are held at once; None: by `TILE_BYTES`.

    Returns:
        Log-probabilities and KL of each token. No second derivative.
    """
    tile = tile or tile_size(head)
    if reference is None:
        (logprob,) = _TiledLikelihoods.apply(  # type: ignore[no-untyped-call]
            hidden, head.weight, head, target, tile
        )
        zero = torch.zeros_like(logprob.detach())
        return Likelihoods(logprob, zero, zero)
    logprob, reference_logprob, kl = _TiledLikelihoods.apply(  # type: ignore[no-untyped-call]
        hidden, head.weight, head, target, tile, reference
    )
    return Likelihoods(logprob, reference_logprob.detach(), kl)


def token_kl(hidden: Tensor, head: Head, reference: Reference, *, tile: int | None = None) -> Tensor:
    """Compute KL(π_ref ‖ π_θ) of each token alone, shape (N,), in nats, ≥ 0; see `token_likelihoods`."""
    unused = torch.zeros(len(hidden), dtype=torch.long, device=hidden.device)
    values = _TiledLikelihoods.apply(  # type: ignore[no-untyped-call]
        hidden, head.weight, head, unused, tile or tile_size(head), reference, False
    )
    kl: Tensor = values[2]
    return kl


def token_log_probabilities(hidden: Tensor, head: Head, target: Tensor, *, tile: int | None = None) -> Tensor:
    """Compute log π(target_t | prefix), shape (N,), in nats; see `token_likelihoods`."""
    return token_likelihoods(hidden, head, target, tile=tile).logprob


class _TiledLikelihoods(torch.autograd.Function):
    """`head.weight` is an argument of its own, so that autograd sees it; `head` says how it is used.

    Per token t the forward returns log q[target], and with a reference log p[target] and KL(p ‖ q).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        head: Head,
        target: Tensor,
        tile: int,
        reference: Reference | None = None,
        scores_targets: bool = True,
    ) -> tuple[Tensor, ...]:
        # One row of values each for log q[target], log p[target] and KL: shape (1 or 3, N).
        exact = torch.promote_types(hidden.dtype, torch.float32)
        values = torch.zeros(1 if reference is None else 3, len(target), dtype=exact, device=hidden.device)
        # −∂ logprob/∂h and ∂ KL/∂h, shape (0 to 2, N, d): formed here, while the logits are at hand.
        derivatives = min(len(values), 2) if ctx.needs_input_grad[0] else 0
        state_gradients = hidden.new_empty(derivatives, *hidden.shape)
        logits = reference_tile = None
        for start in range(0, len(target), tile):
            part = slice(start, start + tile)
            # Logits (tile, V) of policy and reference, in the memory of the tile before.
            logits = head.logits(hidden[part], logits)
            if reference is not None:
                reference_tile = reference.tile(part, logits, reference_tile)
            keep_q = bool(derivatives) and scores_targets
            _sweep_tile(values[:, part], logits, head, target[part, None], reference_tile, keep_q=keep_q)
            # (tile, V) · (V, d): each logits' gradient leaves its tile as the gradient of the states.
            if keep_q:
                state_gradients[0, part] = logits.to(hidden.dtype) @ weight
            if derivatives and reference_tile is not None:
                state_gradients[1, part] = reference_tile.logit_gradient.to(hidden.dtype) @ weight
        ctx.save_for_backward(hidden, target, state_gradients)
        ctx.head = head
        ctx.reference = reference
        ctx.tile = tile
        ctx.scores_targets = scores_targets
        return tuple(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        hidden, target, state_gradients = ctx.saved_tensors
        # Cotangents of shape (N,); what is returned of the reference has none.
        grad_logprob = grads[0]
        grad_kl = grads[2] if len(grads) > 1 else None
        grad_hidden = grad_weight = None
        if ctx.needs_input_grad[0]:
            # Chain rule, token by token: the stored (N, d) derivatives times the cotangents.
            terms = [(state_gradients[0], -grad_logprob)] if ctx.scores_targets else []
            terms += [(state_gradients[1], grad_kl)] if grad_kl is not None else []
            grad_hidden = sum(gradient * grad[:, None].to(hidden.dtype) for gradient, grad in terms)
        if ctx.needs_input_grad[1]:
            # A sum over tokens weighted by the cotangents, so it could not be formed in the forward.
            grad_weight = head_gradient(
                hidden, ctx.head, target, grad_logprob, grad_kl, ctx.reference, tile=ctx.tile
            )
        return grad_hidden, grad_weight, *(None,) * 5


def _sweep_tile(
    values: Tensor,
    logits: Tensor,
    head: Head,
    target: Tensor,
    reference: ReferenceTile | None,
    *,
    keep_q: bool,
) -> None:
    """Fill a tile's values, and replace logits by gradients with respect to W h.

    Args:
        values: Filled with log q[target], log p[target] and KL, shape (1 or 3, tile).
        logits: The policy's, shape (tile, V); overwritten with slope · (q − 𝟙[target]) if `keep_q`.
        head: The policy's output head.
        target: Token ids, shape (tile, 1).
        reference: Its `logit_gradient` becomes slope · (q − p); None: no reference.
        keep_q: Whether the gradient of the log-probability is wanted.
    """
    # Some rows at a time, so that on a CPU the passes over them stay in its cache.
    for block in row_blocks(logits):
        # Taken first: the logits' memory is overwritten below.
        slope = head.slope(logits[block])
        log_q = torch.log_softmax(logits[block], dim=-1)
        values[0, block] = log_q.gather(1, target[block])[:, 0]
        if reference is not None:
            values[1, block], values[2, block] = reference.compare(block, log_q, target[block])
            scale_in_place(reference.logit_gradient[block], slope)
        if keep_q:
            q = torch.exp(log_q, out=logits[block])
            scale_in_place(subtract_one_hot(q, target[block]), slope)


@torch.no_grad()
def head_gradient(
    hidden: Tensor,
    head: Head,
    target: Tensor,
    grad_logprob: Tensor,
    grad_kl: Tensor | None = None,
    reference: Reference | None = None,
    *,
    tile: int | None = None,
) -> Tensor:
    """Compute the gradient of the head's matrix, Σ_t (g_t (𝟙[target_t] − q_t) + k_t (q_t − p_t)) h_tᵀ.

    Added up in float32 or better and rounded once: in half precision the later tiles would be lost beside the
    sum of the earlier.

    Args:
        hidden: Shape (N, d).
        head: The policy's output head.
        target: Token ids, shape (N,).
        grad_logprob: g, the cotangent of each token's log-probability, shape (N,).
        grad_kl: k, of each token's KL, shape (N,); None: zero.
        reference: Needed where there is a `grad_kl`.
        tile: Tokens whose logits are held at once; None: by `TILE_BYTES`.

    Returns:
        Shape (V, d), in the dtype of the head's matrix.
    """
    tile = tile or tile_size(head)
    total = torch.zeros_like(head.weight, dtype=torch.promote_types(head.weight.dtype, torch.float32))
    logits = reference_tile = None
    for start in range(0, len(target), tile):
        part = slice(start, start + tile)
        target_ids = target[part, None]
        logits = head.logits(hidden[part], logits)  # (tile, V)
        if grad_kl is not None and reference is not None:
            reference_tile = reference.tile(part, logits, reference_tile)
        for block in row_blocks(logits):
            slope = head.slope(logits[block])
            log_q = torch.log_softmax(logits[block], dim=-1)
            if reference_tile is not None:
                reference_tile.compare(block, log_q, target_ids[block])
            # slope · (−g (q − 𝟙) + k (q − p)), in the memory of the logits.
            gradient = subtract_one_hot(torch.exp(log_q, out=logits[block]), target_ids[block])
            gradient.mul_(-grad_logprob[part][block, None])
            if reference_tile is not None and grad_kl is not None:
                gradient.addcmul_(reference_tile.logit_gradient[block], grad_kl[part][block, None])
            scale_in_place(gradient, slope)
        _add_product(total, logits.to(hidden.dtype), hidden[part])
    return total.to(head.weight.dtype)


def _add_product(total: Tensor, logit_gradient: Tensor, hidden: Tensor) -> None:
    """Add logit_gradientᵀ · hidden, (V, tile) · (tile, d), to the total; `GRADIENT_ROWS` words at once."""
    if total.dtype == logit_gradient.dtype:
        total.addmm_(logit_gradient.t(), hidden)
        return
    for rows, columns in zip(
        total.split(GRADIENT_ROWS), logit_gradient.split(GRADIENT_ROWS, dim=1), strict=True
    ):
        rows += columns.t() @ hidden
