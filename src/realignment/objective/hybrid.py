"""The hybrid objective (method.md, section 4): a pair's treatment, its loss, and the sum over a batch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal

import torch
from torch import Tensor

from realignment.likelihood.packing import Rows
from realignment.likelihood.tokenization import TokenizedPair
from realignment.objective import losses


class Treatment(IntEnum):
    """What training does with a pair. The order of its responses in the row is part of the treatment."""

    PREFER = 0
    """INVERT: responses (preferred, dispreferred)."""
    CORRECT = 1
    """PUNISH with a verified correction: (correction, chosen, rejected)."""
    SUPPRESS = 2
    """PUNISH without one: (chosen, rejected); one response, or more, of any pair in other methods."""
    KEEP = 3
    """RETAIN: (chosen,); no preference term."""
    AFFIRM = 4
    """RETAIN whose rejected response violates: (chosen, rejected); an option that TRACE does not have."""
    IMITATE = 5
    """A conflict's compliant answer alone: (compliant,); its loss is the anchor (fine-tuning)."""

    @property
    def is_conflict(self) -> bool:
        """Whether the pair is trained away from its chosen response."""
        return self not in (Treatment.KEEP, Treatment.AFFIRM)


PREFERENCE_LOSSES = Literal["dpo", "ipo", "robust"]
SUPPRESSION_LOSSES = Literal["npo", "npo_paper", "apo_down", "ascent"]
REDUCTIONS = Literal["disposition_mean", "mean", "sum"]


@dataclass(frozen=True, slots=True)
class Objective:
    """The settings of the hybrid loss.

    Attributes:
        beta: Inverse temperature of every preference term (paper: 0.3).
        invert: Loss of INVERT pairs.
        suppress: Loss of PUNISH pairs without a correction. ``npo_paper`` drops NPO's factor 2/β, ``ascent``
            is GradDiff's.
        preference_weight: Weight of the preference, correction and suppression terms; 0 leaves the anchor.
        punish_weight: λ_II, the share of PUNISH pairs in the loss.
        kl_weight: α_KL of the RETAIN pairs.
        retain_weight: Weight of the RETAIN pairs' own loss, next to their KL; 0 is TRACE.
        anchor_weight: Weight of −log π(y⁺)/|y⁺| in every pair's loss that has a compliant answer; 0 is TRACE.
        error_rate: ε of the robust loss: the oracle's probability of error.
        reduction: How a batch's losses are added up; see `loss_coefficients`.
    """

    beta: float
    invert: PREFERENCE_LOSSES = "dpo"
    suppress: SUPPRESSION_LOSSES = "npo"
    punish_weight: float = 1.0
    kl_weight: float = 0.1
    retain_weight: float = 0.0
    anchor_weight: float = 0.0
    error_rate: float = 0.0
    preference_weight: float = 1.0
    reduction: REDUCTIONS = "disposition_mean"

    def without_label_errors(self) -> "Objective":
        """Return the objective that labels without errors would have: DPO in place of the robust loss.

        Impact scores are of this one. The robust loss undoes the errors by the factor 1/(1 − 2ε) in its own
        gradient; a score that had the factor too would count it twice.
        """
        return replace(self, invert="dpo", error_rate=0.0) if self.invert == "robust" else self


@dataclass(frozen=True, slots=True)
class Example:
    """A pair ready to be trained on or scored.

    Attributes:
        pair_id: The pair's identity.
        tokens: Prompt and responses, in the order of the treatment.
        treatment: What training does with it.
        columns: The responses' columns of the table of pairs, in the same order; empty: not from a table.
        weight: w̃, the impact weight.
        reference: log π_ref of each response in nats; empty: not (yet) computed.
        error_rate: ε of this pair in the robust loss; None: the objective's.
    """

    pair_id: str
    tokens: TokenizedPair
    treatment: Treatment
    weight: float = 1.0
    reference: tuple[float, ...] = ()
    error_rate: float | None = None
    columns: tuple[str, ...] = ()


def is_retained(treatments: Tensor) -> Tensor:
    """Return which pairs are RETAIN pairs, shape (P,)."""
    return (treatments == Treatment.KEEP) | (treatments == Treatment.AFFIRM)


def error_rates(examples: Sequence[Example]) -> Tensor:
    """Return ε of each example in the robust loss, shape (P,); NaN where it is the objective's."""
    return torch.tensor([math.nan if e.error_rate is None else e.error_rate for e in examples])


def pair_losses(
    logprobs: Tensor,
    reference: Tensor,
    rows: Rows,
    treatments: Tensor,
    objective: Objective,
    error_rates: Tensor | None = None,
) -> Tensor:
    """Compute ℓ_i of every pair, unweighted.

    KEEP and IMITATE pairs have the anchor alone, an AFFIRM pair prefers its chosen response as an INVERT pair
    the other.

    Args:
        logprobs: log π_θ of all responses in nats, shape (R,).
        reference: log π_ref of the same, shape (R,).
        rows: Their layout, P pairs.
        treatments: `Treatment` of each pair, shape (P,).
        objective: The settings.
        error_rates: ε of each pair in the robust loss, shape (P,); NaN, or None for all: the objective's.

    Returns:
        Shape (P,).
    """
    logratios = logprobs - reference  # (R,)
    first = rows.first  # (P,): a pair's responses are at first, first + 1, …
    values = logprobs.new_zeros(len(treatments))
    # Indices of the pairs of each kind; a pair is in one of the first three at most.
    prefer = ((treatments == Treatment.PREFER) | (treatments == Treatment.AFFIRM)).nonzero()[:, 0]
    correct = (treatments == Treatment.CORRECT).nonzero()[:, 0]
    suppress = (treatments == Treatment.SUPPRESS).nonzero()[:, 0]
    answered = (treatments != Treatment.SUPPRESS).nonzero()[:, 0]
    if len(prefer):
        own = torch.full_like(values, math.nan) if error_rates is None else error_rates
        rates = own[prefer].to(values.dtype).nan_to_num(nan=objective.error_rate)
        values = values.index_add(0, prefer, _preference(logratios, rows, first[prefer], objective, rates))
    if len(correct):
        correction, chosen, rejected = (logratios[first[correct] + slot] for slot in range(3))
        correction_losses = losses.correction_loss(correction, chosen, rejected, beta=objective.beta)
        values = values.index_add(0, correct, correction_losses)
    if len(suppress):
        values = values + _suppression(logprobs, logratios, rows, treatments, objective)
    values = objective.preference_weight * values
    if objective.anchor_weight and len(answered):
        # A treatment's first response is its compliant answer, but for SUPPRESS, which has none.
        anchor = losses.anchor_loss(logprobs[first[answered]], rows.length[first[answered]])
        values = values.index_add(0, answered, objective.anchor_weight * anchor)
    return values


def _preference(
    logratios: Tensor, rows: Rows, first: Tensor, objective: Objective, rate: Tensor | float
) -> Tensor:
    """Loss of each pair whose responses are (preferred, dispreferred), from index `first` on."""
    preferred = logratios[first]
    dispreferred = logratios[first + 1]
    match objective.invert:
        case "dpo":
            return losses.dpo_loss(preferred, dispreferred, beta=objective.beta)
        case "ipo":
            lengths = {"preferred_length": rows.length[first], "dispreferred_length": rows.length[first + 1]}
            return losses.ipo_loss(preferred, dispreferred, beta=objective.beta, **lengths)
        case "robust":
            return losses.robust_loss(preferred, dispreferred, beta=objective.beta, error_rate=rate)


def _suppression(
    logprobs: Tensor, logratios: Tensor, rows: Rows, treatments: Tensor, objective: Objective
) -> Tensor:
    """Loss of each pair whose responses are all to be suppressed; zero for the other pairs, shape (P,)."""
    beta = objective.beta
    zeros = logratios.new_zeros(len(treatments))
    suppressed = (treatments[rows.pair] == Treatment.SUPPRESS).nonzero()[:, 0]  # indices of responses
    owners = rows.pair[suppressed]
    match objective.suppress:
        case "npo":
            values = losses.npo_loss(logratios[suppressed], beta=beta)
        case "npo_paper":
            values = losses.npo_loss(logratios[suppressed], beta=beta) * beta / 2
        case "ascent":
            values = losses.ascent_loss(logprobs[suppressed], rows.length[suppressed])
        case "apo_down":
            owners = (treatments == Treatment.SUPPRESS).nonzero()[:, 0]
            chosen = logratios[rows.first[owners]]
            rejected = logratios[rows.first[owners] + 1]
            values = losses.apo_down_loss(rejected, chosen, beta=beta)
    return zeros.index_add(0, owners, values)


def loss_coefficients(treatments: Tensor, objective: Objective, counts: Tensor) -> Tensor:
    """Return how much ℓ_i counts in the batch's loss before its impact weight.

    1, λ_II and λ_R for the pairs of each disposition, divided by a number of pairs: with the reduction
    ``disposition_mean`` the disposition's own N_INVERT, N_PUNISH, N_RETAIN, with ``mean`` all of the batch's
    pairs, with ``sum`` (TRACE's released code) one.

    Args:
        treatments: `Treatment` of each pair, shape (P,).
        objective: The settings.
        counts: See `hybrid_loss`.

    Returns:
        Shape (P,).
    """
    scale = torch.tensor([1.0, objective.punish_weight, objective.retain_weight], device=counts.device)
    return (scale / _denominators(counts, objective))[disposition_indices(treatments)]


def _denominators(counts: Tensor, objective: Objective) -> Tensor:
    """By what the sum over a disposition's pairs is divided, shape (3,)."""
    match objective.reduction:
        case "disposition_mean":
            # A disposition that the data lack has the sum zero, whatever it is divided by.
            return torch.where(counts > 0, counts, torch.ones_like(counts))
        case "mean":
            return counts.sum().expand(3)
        case "sum":
            return torch.ones_like(counts)


def count_dispositions(treatments: Tensor) -> Tensor:
    """Count the pairs that are treated as INVERT, PUNISH and RETAIN, shape (3,)."""
    return torch.bincount(disposition_indices(treatments), minlength=3)


def disposition_indices(treatments: Tensor) -> Tensor:
    """Turn `Treatment` values of any shape into 0: INVERT, 1: PUNISH, 2: RETAIN, by what is done."""
    return torch.tensor([0, 1, 1, 2, 2, 0], device=treatments.device)[treatments]


def hybrid_loss(
    per_pair: Tensor,
    weights: Tensor,
    treatments: Tensor,
    retained_kl: Tensor,
    objective: Objective,
    counts: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Combine a batch's losses into one.

    L = mean_INVERT w̃ᵢ ℓᵢ + λ_II mean_PUNISH w̃ⱼ ℓⱼ + mean_RETAIN (α_KL KLₖ + λ_R ℓₖ), each mean over the
    disposition's own pairs; see `loss_coefficients` for the other reductions.

    Args:
        per_pair: ℓ, shape (P,).
        weights: w̃, shape (P,).
        treatments: Shape (P,).
        retained_kl: Token-mean KL of each RETAIN pair's chosen response, in order, shape (N_RETAIN,).
        objective: The settings. TRACE has λ_R = `retain_weight` = 0.
        counts: Pairs of each disposition that the means are over, shape (3,): the numbers that are expected
            in a batch, so that a disposition which a small batch often lacks keeps its share. None:
            `count_dispositions` of these pairs. The losses of a batch's parts add up to the batch's.

    Returns:
        The loss, and its terms before λ_II, α_KL and λ_R.
    """
    counts = count_dispositions(treatments) if counts is None else counts
    # Σ w̃ ℓ of each disposition, shape (3,). A disposition without pairs has mean zero.
    sums = per_pair.new_zeros(3).index_add(0, disposition_indices(treatments), weights * per_pair)
    denominators = _denominators(counts, objective)
    means = sums / denominators
    kl = retained_kl.sum() / denominators[2]
    total = (
        means[0]
        + objective.punish_weight * means[1]
        + objective.retain_weight * means[2]
        + objective.kl_weight * kl
    )
    terms = {"invert_loss": means[0], "punish_loss": means[1], "retain_loss": means[2], "retain_kl": kl}
    return total, terms
