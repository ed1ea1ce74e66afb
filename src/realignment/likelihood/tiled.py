"""Sweeps over the vocabulary, tile by tile: log-probabilities and exact KL, and never N × V logits."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from realignment.likelihood.divergence import Reference
from realignment.likelihood.head import Head, blocks_of, less_target, scaled_by, tile_of

WORDS = 8192
"""Rows of the head's gradient whose product is held beside it in half precision."""


class Likelihoods(NamedTuple):
    """Of N tokens, given what precedes them; each of shape (N,), in nats.

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
    """Log-probabilities of tokens, and with a reference its own and the exact KL, from one sweep.

    Forward KL, reference first (TRACE, arXiv:2511.02623, eq. 9). The sweep forms what the backward scales,

        ∂ logprob_t / ∂h_t = (𝟙[target_t] − q_t) W,      ∂ KL_t / ∂h_t = (q_t − p_t) W,

    q = π_θ, p = π_ref: one product with W each, and no logits are computed twice. Only a head that is trained
    itself has its logits computed again in the backward.

    Args:
        hidden: States that predict the tokens, shape (N, d).
        head: Of the policy.
        target: Token ids, shape (N,).
        reference: At the same tokens; None: only log-probabilities.
        tile: Tokens whose logits are held at once; None: by `TILE_BYTES`.

    Returns:
        Log-probabilities and KL of each token. No second derivative.
    """
    tile = tile or tile_of(head)
    if reference is None:
        (logprob,) = _Sweep.apply(hidden, head.weight, head, target, tile)  # type: ignore[no-untyped-call]
        zero = torch.zeros_like(logprob.detach())
        return Likelihoods(logprob, zero, zero)
    logprob, known, kl = _Sweep.apply(  # type: ignore[no-untyped-call]
        hidden, head.weight, head, target, tile, reference
    )
    return Likelihoods(logprob, known.detach(), kl)


def token_kl(hidden: Tensor, head: Head, reference: Reference, *, tile: int | None = None) -> Tensor:
    """KL(π_ref ‖ π_θ) of each token alone, shape (N,), in nats, ≥ 0; see `token_likelihoods`."""
    unread = torch.zeros(len(hidden), dtype=torch.long, device=hidden.device)
    values = _Sweep.apply(  # type: ignore[no-untyped-call]
        hidden, head.weight, head, unread, tile or tile_of(head), reference, False
    )
    kl: Tensor = values[2]
    return kl


class _Sweep(torch.autograd.Function):
    """`head.weight` is an argument of its own, so that autograd sees it; `head` says how it is used."""

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
        exact = torch.promote_types(hidden.dtype, torch.float32)
        values = torch.zeros(1 if reference is None else 3, len(target), dtype=exact, device=hidden.device)
        kinds = min(len(values), 2) if ctx.needs_input_grad[0] else 0
        slopes = hidden.new_empty(kinds, *hidden.shape)
        logits = against = None
        for start in range(0, len(target), tile):
            part = slice(start, start + tile)
            logits, chosen = head.logits(hidden[part], logits), target[part, None]
            against = None if reference is None else reference.tile(part, logits, against)
            found = values[:, part]
            for block in blocks_of(logits):
                slope, log_q = head.slope(logits[block]), torch.log_softmax(logits[block], dim=-1)
                found[0, block] = log_q.gather(1, chosen[block])[:, 0]
                if against is not None:
                    found[1, block], found[2, block] = against.compare(block, log_q, chosen[block])
                    scaled_by(against.change[block], slope)
                if kinds and scores_targets:
                    q = torch.exp(log_q, out=logits[block])
                    scaled_by(less_target(q, chosen[block]), slope)
            if kinds and scores_targets:
                slopes[0, part] = logits.to(hidden.dtype) @ weight
            if kinds and against is not None:
                slopes[1, part] = against.change.to(hidden.dtype) @ weight
        ctx.save_for_backward(hidden, target, slopes)
        ctx.head, ctx.reference, ctx.tile, ctx.scores_targets = head, reference, tile, scores_targets
        return tuple(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        hidden, target, slopes = ctx.saved_tensors
        grad_logprob, grad_kl = grads[0], grads[2] if len(grads) > 1 else None
        grad_hidden = grad_weight = None
        if ctx.needs_input_grad[0]:
            shares = [(slopes[0], -grad_logprob)] if ctx.scores_targets else []
            shares += [(slopes[1], grad_kl)] if grad_kl is not None else []
            grad_hidden = sum(slope * grad[:, None].to(hidden.dtype) for slope, grad in shares)
        if ctx.needs_input_grad[1]:
            grad_weight = head_gradient(
                hidden, ctx.head, target, grad_logprob, grad_kl, ctx.reference, tile=ctx.tile
            )
        return grad_hidden, grad_weight, *(None,) * 5


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
    """Gradient of the head's matrix, Σ_t (g_t (𝟙[target_t] − q_t) + k_t (q_t − p_t)) h_tᵀ, shape (V, d).

    Added up in float32 or better and rounded once: in half precision the later tiles would be lost beside the
    sum of the earlier.

    Args:
        hidden: Shape (N, d).
        head: Of the policy.
        target: Token ids, shape (N,).
        grad_logprob: g, the cotangent of each token's log-probability, shape (N,).
        grad_kl: k, of each token's KL, shape (N,); None: zero.
        reference: Needed where there is a `grad_kl`.
        tile: Tokens whose logits are held at once; None: by `TILE_BYTES`.
    """
    tile = tile or tile_of(head)
    total = torch.zeros_like(head.weight, dtype=torch.promote_types(head.weight.dtype, torch.float32))
    logits = against = None
    for start in range(0, len(target), tile):
        part = slice(start, start + tile)
        logits, chosen = head.logits(hidden[part], logits), target[part, None]
        if grad_kl is not None and reference is not None:
            against = reference.tile(part, logits, against)
        for block in blocks_of(logits):
            slope, log_q = head.slope(logits[block]), torch.log_softmax(logits[block], dim=-1)
            if against is not None:
                against.compare(block, log_q, chosen[block])
            change = less_target(torch.exp(log_q, out=logits[block]), chosen[block])
            change.mul_(-grad_logprob[part][block, None])
            if against is not None and grad_kl is not None:
                change.addcmul_(against.change[block], grad_kl[part][block, None])
            scaled_by(change, slope)
        _add_product(total, logits.to(hidden.dtype), hidden[part])
    return total.to(head.weight.dtype)


def _add_product(total: Tensor, change: Tensor, hidden: Tensor) -> None:
    """Add changeᵀ · hidden to the total; of a product in half precision there are some words at once."""
    if total.dtype == change.dtype:
        total.addmm_(change.t(), hidden)
        return
    for words, part in zip(total.split(WORDS), change.split(WORDS, dim=1), strict=True):
        words += part.t() @ hidden


def token_log_probabilities(hidden: Tensor, head: Head, target: Tensor, *, tile: int | None = None) -> Tensor:
    """Log π(target_t | prefix), shape (N,), in nats; see `token_likelihoods`."""
    return token_likelihoods(hidden, head, target, tile=tile).logprob
