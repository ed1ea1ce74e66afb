"""What a policy is set against: the reference's distribution over the vocabulary, and the KL to it."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from realignment.likelihood.head import Head, row_dot

FAR = 40.0
"""Nats. Where log q − log p is more, p is taken for q e⁻⁴⁰: what it adds to the KL is 10⁻¹⁶ of q either way,
and eˣ with p ≈ 0 would be ∞ · 0 from 88 on in float32."""

LOST = 16
"""Units in the last place. A share that is one minus a sum is rounding below them."""


class Reference(Protocol):
    """π_ref at N tokens, without gradient."""

    def tile(self, part: slice, like: Tensor, spent: "ReferenceTile | None" = None) -> "ReferenceTile":
        """The reference at some of the N tokens.

        Args:
            part: Which ones.
            like: The policy's logits there, shape (tile, V).
            spent: A tile of as many tokens or more whose memory may be taken.
        """
        ...


class ReferenceTile(Protocol):
    """π_ref at the tokens of a tile."""

    @property
    def change(self) -> Tensor:
        """∂KL/∂logits = q − p, shape (tile, V); valid where `compare` has been."""
        ...

    def compare(self, block: slice, log_q: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Set some rows of the tile against the policy; each row once.

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
    """The reference by its last hidden states, shape (N, d), and its head: exact."""

    hidden: Tensor
    head: Head

    def tile(self, part: slice, like: Tensor, spent: ReferenceTile | None = None) -> "_LogitsTile":
        """See `Reference`."""
        return _LogitsTile(self.head.logits(self.hidden[part], None if spent is None else spent.change))


@dataclass(frozen=True, slots=True)
class _LogitsTile:
    """Holds the reference's logits, and in the end q − p in their place."""

    change: Tensor

    def compare(self, block: slice, log_q: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """See `ReferenceTile`."""
        log_p = torch.log_softmax(self.change[block], dim=-1)
        known = log_p.gather(1, target)[:, 0]
        return known, _divergence(log_p, log_q, self.change[block])


def _divergence(log_p: Tensor, log_q: Tensor, change: Tensor) -> Tensor:
    """KL(p ‖ q) of each row, and q − p; `log_p` is overwritten, and `change` is filled.

    With x = log q − log p: q − p = p (eˣ − 1), and KL = Σ p (eˣ − 1 − x), in which the rounding of both
    normalisers cancels: close to the reference Σ p (−x) alone would be all rounding.
    """
    p = torch.maximum(log_p, log_q - FAR, out=log_p).exp()
    x = torch.sub(log_q, log_p, out=log_p)
    weighted = row_dot(p, x)
    return torch.mul(torch.expm1(x, out=x), p, out=change).sum(1) - weighted


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

    def tile(self, part: slice, like: Tensor, spent: ReferenceTile | None = None) -> "_TopTile":
        """See `Reference`."""
        index, target = self.index[part].long(), self.target[part].to(like.dtype)
        change = torch.empty_like(like) if spent is None else spent.change[: len(like)]
        return _TopTile(index, self.logprob[part].to(like.dtype), target, change)


@dataclass(frozen=True, slots=True)
class _TopTile:
    """The top and the targets of a tile's tokens, as `ReferenceTop` has them."""

    index: Tensor
    logprob: Tensor
    target: Tensor
    change: Tensor

    def compare(self, block: slice, log_q: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """See `ReferenceTile`."""
        index, log_p = self.index[block], self.logprob[block]
        q = torch.exp(log_q, out=self.change[block])
        # The policy's rest is a sum and exact; one minus the top would be rounding where the policy is sure.
        rest_q = q.scatter_(1, index, 0.0).sum(1, keepdim=True).clamp_(min=torch.finfo(q.dtype).tiny)
        rest_p = 1 - log_p.exp().sum(1, keepdim=True)
        # Of the reference there is no more. Where its rest is rounding, it is the policy's for all we know.
        lost = LOST * torch.finfo(q.dtype).eps
        rest_p = torch.where(rest_p < lost, rest_q.clamp(max=lost), rest_p)
        bucketed_p = torch.cat([log_p, rest_p.log()], dim=1)
        bucketed_q = torch.cat([log_q.gather(1, index), rest_q.log()], dim=1)
        change = torch.empty_like(bucketed_p)
        kl = _divergence(bucketed_p, bucketed_q, change)
        q.mul_(change[:, -1:] / rest_q).scatter_(1, index, change[:, :-1])
        return self.target[block], kl
