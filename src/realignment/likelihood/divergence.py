"""What a policy is compared with: the reference's distribution over the vocabulary, and the KL to it."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from realignment.likelihood.head import Head, row_dot

MAX_LOG_RATIO = 40.0
"""Nats. Where log q − log p is more, p is taken for q e⁻⁴⁰: what it adds to the KL is 10⁻¹⁶ of q either way,
and eˣ with p ≈ 0 would be ∞ · 0 from 88 on in float32."""

ROUNDING_UNITS = 16
"""Units in the last place. A probability that is one minus a sum is rounding below them."""


class Reference(Protocol):
    """π_ref at N tokens, without gradient."""

    def tile(self, part: slice, like: Tensor, reuse: "ReferenceTile | None" = None) -> "ReferenceTile":
        """Return the reference at some of the N tokens.

        Args:
            part: Which ones.
            like: The policy's logits there, shape (tile, V).
            reuse: A tile of as many tokens or more whose memory may be overwritten.
        """
        ...


class ReferenceTile(Protocol):
    """π_ref at the tokens of a tile."""

    @property
    def logit_gradient(self) -> Tensor:
        """∂KL/∂logits = q − p, shape (tile, V); valid in the rows that `compare` has seen."""
        ...

    def compare(self, block: slice, log_q: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Compare some rows of the tile with the policy; each row once.

        Args:
            block: Which rows.
            log_q: log π_θ there, shape (rows, V).
            target: Token ids, shape (rows, 1).

        Returns:
            log π_ref(target) and KL, shape (rows,) each.
        """
        ...


@dataclass(frozen=True, slots=True)
class ReferenceStates:
    """The reference by its last hidden states and its head: exact.

    Attributes:
        hidden: States that predict the N tokens, shape (N, d).
        head: The reference's output head.
    """

    hidden: Tensor
    head: Head

    def tile(self, part: slice, like: Tensor, reuse: ReferenceTile | None = None) -> "_LogitsTile":
        """Return the reference at some of the tokens; see `Reference`."""
        out = None if reuse is None else reuse.logit_gradient
        return _LogitsTile(self.head.logits(self.hidden[part], out))


@dataclass(frozen=True, slots=True)
class _LogitsTile:
    """Holds the reference's logits, and after `compare` q − p in their place."""

    logit_gradient: Tensor

    def compare(self, block: slice, log_q: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """See `ReferenceTile`."""
        log_p = torch.log_softmax(self.logit_gradient[block], dim=-1)
        # Read before `_divergence`, which overwrites log p.
        target_log_p = log_p.gather(1, target)[:, 0]
        return target_log_p, _divergence(log_p, log_q, self.logit_gradient[block])


def _divergence(log_p: Tensor, log_q: Tensor, difference: Tensor) -> Tensor:
    """Compute KL(p ‖ q) of each row, and q − p.

    With x = log q − log p: q − p = p (eˣ − 1), and KL = Σ p (eˣ − 1 − x), in which the rounding of both
    normalisers cancels: close to the reference Σ p (−x) alone would be all rounding.

    Args:
        log_p: The reference's, shape (rows, V); overwritten.
        log_q: The policy's, shape (rows, V).
        difference: Filled with q − p, shape (rows, V).

    Returns:
        KL of each row in nats, shape (rows,).
    """
    p = torch.maximum(log_p, log_q - MAX_LOG_RATIO, out=log_p).exp()
    x = torch.sub(log_q, log_p, out=log_p)
    # Σ p x first: the next line overwrites x with eˣ − 1.
    linear = row_dot(p, x)
    return torch.mul(torch.expm1(x, out=x), p, out=difference).sum(1) - linear


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

    def tile(self, part: slice, like: Tensor, reuse: ReferenceTile | None = None) -> "_TopTile":
        """Return the reference at some of the tokens; see `Reference`."""
        return _TopTile(
            index=self.index[part].long(),
            logprob=self.logprob[part].to(like.dtype),
            target=self.target[part].to(like.dtype),
            logit_gradient=torch.empty_like(like) if reuse is None else reuse.logit_gradient[: len(like)],
        )


@dataclass(frozen=True, slots=True)
class _TopTile:
    """The top and the targets of a tile's tokens, as `ReferenceTop` has them."""

    index: Tensor
    logprob: Tensor
    target: Tensor
    logit_gradient: Tensor

    def compare(self, block: slice, log_q: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """See `ReferenceTile`."""
        index = self.index[block]  # (rows, k)
        log_p = self.logprob[block]  # (rows, k)
        q = torch.exp(log_q, out=self.logit_gradient[block])  # (rows, V)
        # The policy's rest is a sum and exact; one minus the top would be rounding where the policy is sure.
        rest_q = q.scatter_(1, index, 0.0).sum(1, keepdim=True).clamp_(min=torch.finfo(q.dtype).tiny)
        rest_p = 1 - log_p.exp().sum(1, keepdim=True)
        # Only the top of the reference is stored. A rest within rounding could as well be the policy's.
        rounding = ROUNDING_UNITS * torch.finfo(q.dtype).eps
        rest_p = torch.where(rest_p < rounding, rest_q.clamp(max=rounding), rest_p)
        # Two distributions over k + 1 buckets, and the exact KL between them.
        bucketed_p = torch.cat([log_p, rest_p.log()], dim=1)
        bucketed_q = torch.cat([log_q.gather(1, index), rest_q.log()], dim=1)
        difference = torch.empty_like(bucketed_p)
        kl = _divergence(bucketed_p, bucketed_q, difference)
        # Back to V words: the rest's q − p is shared out in the policy's proportions, the top's is its own.
        q.mul_(difference[:, -1:] / rest_q).scatter_(1, index, difference[:, :-1])
        return self.target[block], kl
