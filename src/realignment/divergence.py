"""What a policy is set against: the reference's distribution over the vocabulary, and the KL to it."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from realignment.head import Head, row_dot


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
        weighted = row_dot(p, x)
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
