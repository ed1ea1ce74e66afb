"""One forward pass of the policy over a part of a batch, set against the reference."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from realignment import likelihood
from realignment.objective import is_retained
from realignment.packing.rows import Rows
from realignment.training.collation import Part
from realignment.vocabulary.divergence import Reference
from realignment.vocabulary.head import Head
from realignment.vocabulary.sweeps import head_gradient, token_likelihoods


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the model makes of a part of a batch.

    Attributes:
        rows: The part's pairs.
        hidden: States that predict the response tokens, shape (N, d).
        logprobs: log π_θ of each response token, shape (N,).
        kl: KL to the reference at each token; zero at tokens of conflicts, shape (N,).
        reference: log π_ref of each response, shape (R,).
        conflict: Tokens of conflicts, by index.
        kept: Tokens of retained pairs, by index.
        known: The reference at the kept tokens; None: nothing is kept.
    """

    rows: Rows
    hidden: Tensor
    logprobs: Tensor
    kl: Tensor
    reference: Tensor
    conflict: Tensor
    kept: Tensor
    known: Reference | None

    def head_gradient(self, head: Head, slopes: Tensor, kl_slopes: Tensor) -> Tensor:
        """Gradient of the output head's matrix, given the cotangents of each token's log-probability and KL.

        Args:
            head: Of the policy.
            slopes: Cotangents of `logprobs`, shape (N,).
            kl_slopes: Cotangents of `kl`, shape (N,).

        Returns:
            Shape (V, d).
        """
        hidden, target, conflict, kept = self.hidden.detach(), self.rows.target, self.conflict, self.kept
        total = head_gradient(hidden[conflict], head, target[conflict], slopes[conflict])
        if self.known is None:
            return total
        cotangents = (slopes[kept], kl_slopes[kept])
        return total + head_gradient(hidden[kept], head, target[kept], *cotangents, self.known)


def look(model: nn.Module, part: Part, known: Reference | None) -> Outlook:
    """One forward pass of the policy, set against the reference."""
    rows, retained = Rows(**part["rows"]), is_retained(part["treatments"])
    hidden, head = likelihood.response_hidden_states(model, rows), likelihood.output_head(model)
    is_kept = retained[rows.pair[rows.response]]
    conflict, kept = ((~is_kept).nonzero()[:, 0], is_kept.nonzero()[:, 0])
    tokens = token_likelihoods(hidden[conflict], head, rows.target[conflict])
    logprobs = tokens.logprob.new_zeros(len(rows.target)).index_add(0, conflict, tokens.logprob)
    kl = torch.zeros_like(logprobs)
    reference = part["reference"].to(logprobs.dtype, copy=True)
    if known is not None:
        tokens = token_likelihoods(hidden[kept], head, rows.target[kept], known)
        logprobs, kl = (
            total.index_add(0, kept, values)
            for total, values in ((logprobs, tokens.logprob), (kl, tokens.kl))
        )
        found = torch.zeros_like(logprobs).index_add(0, kept, tokens.reference)
        of_kept = retained[rows.pair]
        reference[of_kept] = likelihood.sum_per_response(found, rows)[of_kept]
    return Outlook(rows, hidden, logprobs, kl, reference, conflict, kept, known)


def retained_kl(kl: Tensor, rows: Rows, treatments: Tensor) -> Tensor:
    """Token-mean KL of each RETAIN pair's chosen response, in order, shape (N_RETAIN,).

    Args:
        kl: KL at each token, shape (N,).
        rows: The pairs.
        treatments: `Treatment` of each pair, shape (P,).
    """
    chosen = rows.first[is_retained(treatments)]
    return likelihood.sum_per_response(kl, rows)[chosen] / rows.length[chosen]
