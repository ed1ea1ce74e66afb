"""One forward pass of the policy over a part of a batch, compared with the reference."""

from dataclasses import dataclass

from torch import Tensor, nn

from realignment.likelihood.backbone import output_head
from realignment.likelihood.divergence import Reference
from realignment.likelihood.log_probs import response_hidden_states, sum_per_response
from realignment.likelihood.packing import Rows
from realignment.likelihood.tiled import token_likelihoods
from realignment.training.collation import Part


@dataclass(frozen=True, slots=True)
class ForwardPass:
    """What the policy computes for a part of a batch.

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


def forward_policy(model: nn.Module, part: Part, reference: Reference | None) -> ForwardPass:
    """Run the policy once over a part of a batch.

    Args:
        model: The policy.
        part: From `Collator`.
        reference: The reference at the response tokens of retained pairs; None: the pairs are conflicts,
            whose log π_ref is in the part.

    Returns:
        Log-probabilities with their graph, and the reference's without.
    """
    rows = Rows(**part["rows"])
    hidden = response_hidden_states(model, rows)
    tokens = token_likelihoods(hidden, output_head(model), rows.target, reference)
    if reference is None:
        reference_logprobs = part["reference"].to(tokens.logprob.dtype)  # (R,)
    else:
        reference_logprobs = sum_per_response(tokens.reference, rows)
    return ForwardPass(rows, hidden, tokens.logprob, tokens.kl, reference_logprobs)


def retained_kl(forward_pass: ForwardPass, part: Part) -> Tensor:
    """Compute the token-mean KL of each RETAIN pair's chosen response, in order, shape (N_RETAIN,)."""
    rows = forward_pass.rows
    if not part["is_retained"]:
        return forward_pass.kl.new_zeros(0)
    # A retained pair's chosen response is its first.
    return sum_per_response(forward_pass.kl, rows)[rows.first] / rows.length[rows.first]
