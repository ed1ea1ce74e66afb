"""One forward pass of the policy over a part of a batch, set against the reference."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from realignment.likelihood.backbone import output_head
from realignment.likelihood.divergence import Reference
from realignment.likelihood.log_probs import response_hidden_states, sum_per_response
from realignment.likelihood.packing import Rows
from realignment.likelihood.tiled import token_likelihoods
from realignment.training.collation import Part


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
    hidden, head = response_hidden_states(model, rows), output_head(model)
    tokens = token_likelihoods(hidden, head, rows.target, known)
    if known is None:
        reference = part["reference"].to(tokens.logprob.dtype)
        return Outlook(rows, hidden, tokens.logprob, torch.zeros_like(tokens.logprob), reference)
    reference = sum_per_response(tokens.reference, rows)
    return Outlook(rows, hidden, tokens.logprob, tokens.kl, reference)


def retained_kl(outlook: Outlook, part: Part) -> Tensor:
    """Token-mean KL of each RETAIN pair's chosen response, in order, shape (N_RETAIN,)."""
    rows = outlook.rows
    if not part["is_retained"]:
        return outlook.kl.new_zeros(0)
    return sum_per_response(outlook.kl, rows)[rows.first] / rows.length[rows.first]
