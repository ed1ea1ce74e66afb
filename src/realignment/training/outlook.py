"""One forward pass of the policy over a part of a batch, set against the reference."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from realignment import likelihood
from realignment.packing.rows import Rows
from realignment.training.collation import Part
from realignment.vocabulary.divergence import Reference
from realignment.vocabulary.sweeps import token_likelihoods


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the model makes of a part of a batch.

    Attributes:
        rows: The part's pairs.
        hidden: States that predict the response tokens, shape (N, d).
        logprobs: log π_θ of each response token, shape (N,).
        kl: KL to the reference at each token, shape (N,); zero where the pairs are conflicts.
        reference: log π_ref of each response, shape (R,).
    """

    rows: Rows
    hidden: Tensor
    logprobs: Tensor
    kl: Tensor
    reference: Tensor


def look(model: nn.Module, part: Part, known: Reference | None) -> Outlook:
    """One forward pass of the policy, set against the reference; None: of conflicts, the part has it."""
    rows = Rows(**part["rows"])
    hidden, head = likelihood.response_hidden_states(model, rows), likelihood.output_head(model)
    tokens = token_likelihoods(hidden, head, rows.target, known)
    if known is None:
        reference = part["reference"].to(tokens.logprob.dtype)
        return Outlook(rows, hidden, tokens.logprob, torch.zeros_like(tokens.logprob), reference)
    reference = likelihood.sum_per_response(tokens.reference, rows)
    return Outlook(rows, hidden, tokens.logprob, tokens.kl, reference)


def retained_kl(outlook: Outlook, part: Part) -> Tensor:
    """Token-mean KL of each RETAIN pair's chosen response, in order, shape (N_RETAIN,)."""
    rows = outlook.rows
    if not part["is_retained"]:
        return outlook.kl.new_zeros(0)
    return likelihood.sum_per_response(outlook.kl, rows)[rows.first] / rows.length[rows.first]
