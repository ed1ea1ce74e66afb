"""Sweeps over the vocabulary, tile by tile: log-probabilities and exact KL, and never N × V logits."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

TILE_BYTES = 2**24
"""Of a tile of float32 logits: large enough for the matrix product, small enough for the caches."""


@dataclass(frozen=True, slots=True)
class Head:
    """What turns a hidden state into logits: logits = cap(scale · W h), cap(z) = c · tanh(z / c).

    Attributes:
        weight: W, the output embedding, shape (V, d).
        softcap: c of Gemma's soft-capping; None: no cap.
        scale: Of Cohere's and Granite's logits.
    """

    weight: Tensor
    softcap: float | None = None
    scale: float = 1.0

    def logits(self, hidden: Tensor) -> Tensor:
        """Shape (N, V), in float32 or better."""
        logits = hidden @ self.weight.t()
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.scale != 1.0:
            exact = exact * self.scale
        return exact if self.softcap is None else self.softcap * torch.tanh(exact / self.softcap)

    def slope(self, logits: Tensor) -> Tensor | float:
        """∂ logits / ∂ (W h), of the logits' shape; a number where it is constant."""
        if self.softcap is None:
            return self.scale
        return self.scale * (1 - (logits / self.softcap) ** 2)

    def detach(self) -> "Head":
        """The same head as a constant."""
        return Head(self.weight.detach(), self.softcap, self.scale)


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


class Reference(Protocol):
    """π_ref at N tokens, without gradient."""

    def compare(self, part: slice, log_q: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Set a tile of the policy against the reference.

        Args:
            part: Which of the N tokens.
            log_q: log π_θ there, shape (tile, V); may be read alone.
            target: Token ids, shape (tile, 1).

        Returns:
            log π_ref(target), shape (tile,); q − p = ∂KL/∂logits, shape (tile, V); KL, shape (tile,).
        """
        ...


@dataclass(frozen=True, slots=True)
class ReferenceStates:
    """The reference by its last hidden states, shape (N, d), and its head: exact."""

    hidden: Tensor
    head: Head

    def compare(self, part: slice, log_q: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Reference`."""
        log_p = torch.log_softmax(self.head.logits(self.hidden[part]), dim=-1)
        known, p = log_p.gather(1, target)[:, 0], log_p.exp()
        # With x = log q − log p: q − p = p (eˣ − 1), and KL = Σ p (eˣ − 1 − x), in which the rounding of both
        # normalisers cancels: close to the reference Σ p (−x) alone would be all rounding.
        x = torch.sub(log_q, log_p, out=log_p)
        weighted = _dot(p, x)
        difference = torch.expm1(x, out=x).mul_(p)
        return known, difference, difference.sum(1) - weighted


@dataclass(frozen=True, slots=True)
class ReferenceTop:
    """The reference by its k likeliest tokens and one bucket for all others: never above the exact KL.

    The bucket's share is spread as the policy spreads it, which is what the gradient of the bucketed KL says.

    Attributes:
        index: The k tokens, shape (N, k).
        logprob: Their log π_ref, shape (N, k).
        target: log π_ref of each target, shape (N,).
    """

    index: Tensor
    logprob: Tensor
    target: Tensor

    def compare(self, part: slice, log_q: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Reference`."""
        index, log_p = self.index[part].long(), self.logprob[part].to(log_q.dtype)
        p, mine = log_p.exp(), log_q.gather(1, index)
        # In rounded numbers the top can sum to more than one.
        rest_p, rest_q = ((1 - x.sum(1)).clamp(min=torch.finfo(x.dtype).tiny) for x in (p, mine.exp()))
        kl = (p * (log_p - mine)).sum(1) + rest_p * (rest_p.log() - rest_q.log())
        difference = log_q.exp().mul_((1 - rest_p / rest_q)[:, None]).scatter_(1, index, mine.exp() - p)
        return self.target[part].to(log_q.dtype), difference, kl


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
    tile = tile or _tile(head)
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
        hidden, head.weight, head, unread, tile or _tile(head), reference, False
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
        for start in range(0, len(target), tile):
            part = slice(start, start + tile)
            logits = head.logits(hidden[part])
            slope, log_q = head.slope(logits), torch.log_softmax(logits, dim=-1)
            del logits
            chosen = target[part, None]
            values[0, part] = log_q.gather(1, chosen)[:, 0]
            difference = None
            if reference is not None:
                values[1, part], difference, values[2, part] = reference.compare(part, log_q, chosen)
            if not len(slopes):
                continue
            if difference is not None:
                slopes[1, part] = _times(difference, slope).to(hidden.dtype) @ weight
            if scores_targets:
                slopes[0, part] = _times(_less_target(log_q.exp_(), chosen), slope).to(hidden.dtype) @ weight
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

    Args:
        hidden: Shape (N, d).
        head: Of the policy.
        target: Token ids, shape (N,).
        grad_logprob: g, the cotangent of each token's log-probability, shape (N,).
        grad_kl: k, of each token's KL, shape (N,); None: zero.
        reference: Needed where there is a `grad_kl`.
        tile: Tokens whose logits are held at once; None: by `TILE_BYTES`.
    """
    tile = tile or _tile(head)
    total = torch.zeros_like(head.weight)
    for start in range(0, len(target), tile):
        part = slice(start, start + tile)
        logits = head.logits(hidden[part])
        slope, log_q, chosen = head.slope(logits), torch.log_softmax(logits, dim=-1), target[part, None]
        change = torch.zeros_like(log_q)
        if grad_kl is not None and reference is not None:
            change = reference.compare(part, log_q, chosen)[1].mul_(grad_kl[part, None])
        change.sub_(_less_target(log_q.exp_(), chosen).mul_(grad_logprob[part, None]))
        total.addmm_(_times(change, slope).to(hidden.dtype).t(), hidden[part])
    return total


def _tile(head: Head) -> int:
    return max(16, TILE_BYTES // (4 * head.weight.shape[0]))


def _times(values: Tensor, slope: Tensor | float) -> Tensor:
    """The product, in place; a pass over the tile is spared where the slope is one."""
    return values if isinstance(slope, float) and slope == 1.0 else values.mul_(slope)


def _dot(first: Tensor, second: Tensor) -> Tensor:
    """Inner product of each row, without a product of the tile's size."""
    return torch.bmm(first[:, None, :], second[:, :, None])[:, 0, 0]


def _less_target(probabilities: Tensor, target: Tensor) -> Tensor:
    """Q − 𝟙[target], in place: in float32 the difference is exact where q is close to one."""
    return probabilities.scatter_add_(1, target, probabilities.new_full((1, 1), -1.0).expand_as(target))


def token_log_probabilities(hidden: Tensor, head: Head, target: Tensor, *, tile: int | None = None) -> Tensor:
    """Log π(target_t | prefix), shape (N,), in nats; see `token_likelihoods`."""
    return token_likelihoods(hidden, head, target, tile=tile).logprob


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
    tile = tile or _tile(head)
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
        expected = _dot(torch.softmax(logits, dim=-1), change)
        parts.append(change.gather(1, target[part, None])[:, 0] - expected)
    return torch.cat(parts)


@torch.no_grad()
def sample_targets(
    hidden: Tensor, head: Head, generator: torch.Generator, *, tile: int | None = None
) -> Tensor:
    """A token drawn from π at each of the N states, shape (N,)."""
    parts = [
        torch.multinomial(torch.softmax(head.logits(states), dim=-1), 1, generator=generator)[:, 0]
        for states in hidden.split(tile or _tile(head))
    ]
    return torch.cat(parts)


@torch.no_grad()
def head_fisher_diagonal(hidden: Tensor, head: Head, target: Tensor, *, tile: int | None = None) -> Tensor:
    """Σ_t (∂ log π(target_t) / ∂W)² for the head's matrix W, shape (V, d)."""
    tile = tile or _tile(head)
    total = torch.zeros_like(head.weight, dtype=torch.promote_types(head.weight.dtype, torch.float32))
    for start in range(0, len(target), tile):
        part = slice(start, start + tile)
        logits = head.logits(hidden[part])
        change = _times(_less_target(torch.softmax(logits, -1), target[part, None]), head.slope(logits))
        total.addmm_(change.square_().t(), hidden[part].to(total.dtype) ** 2)
    return total
