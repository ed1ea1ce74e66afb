"""The losses of the method (method.md, section 4): log-ratios in, one number per pair out; no reduction.

Notation: lr(y) = log π_θ(y|x) − log π_ref(y|x) in nats, summed over the response's tokens;
Δ(a, b) = lr(a) − lr(b).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def dpo_loss(preferred: Tensor, dispreferred: Tensor, *, beta: float) -> Tensor:
    """Prefer one response over another (what TRACE calls "IPO").

    −log σ(β Δ(y⁺, y⁻)), Rafailov et al. 2023, arXiv:2305.18290, eq. 7.

    Args:
        preferred: lr(y⁺) in nats, shape (B,).
        dispreferred: lr(y⁻) in nats, shape (B,).
        beta: Inverse temperature, > 0.

    Returns:
        Loss per pair, shape (B,); log 2 where the policy equals the reference.

    Example:
        >>> at_reference = torch.zeros(1)
        >>> dpo_loss(at_reference, at_reference, beta=0.1)  # log 2
        tensor([0.6931])
        >>> dpo_loss(torch.tensor([5.0]), torch.tensor([-5.0]), beta=0.1)  # a margin of 10 nats
        tensor([0.3133])
    """
    return -F.logsigmoid(beta * (preferred - dispreferred))


def ipo_loss(
    preferred: Tensor,
    dispreferred: Tensor,
    *,
    beta: float,
    preferred_length: Tensor,
    dispreferred_length: Tensor,
) -> Tensor:
    """Pull the margin to a finite target instead of ever further apart (Azar et al. 2023, arXiv:2310.12036).

    (Δ̄(y⁺, y⁻) − 1/(2β))², their eq. 17 with log-ratios averaged over tokens.

    Args:
        preferred: lr(y⁺) in nats, shape (B,).
        dispreferred: lr(y⁻) in nats, shape (B,).
        beta: Regularisation, > 0: the target margin is 1/(2β) nats per token.
        preferred_length: Response tokens of y⁺, shape (B,).
        dispreferred_length: Response tokens of y⁻, shape (B,).

    Returns:
        Loss per pair, shape (B,); 1/(4β²) where the policy equals the reference.
    """
    margin = preferred / preferred_length - dispreferred / dispreferred_length
    return (margin - 1 / (2 * beta)) ** 2


def robust_loss(
    preferred: Tensor, dispreferred: Tensor, *, beta: float, error_rate: Tensor | float
) -> Tensor:
    """The preference loss, unbiased under labels that are wrong with a known probability.

    ((1 − ε) ℓ(Δ) − ε ℓ(−Δ)) / (1 − 2ε), with ℓ = −log σ(β ·): rDPO, Chowdhury et al. 2024,
    arXiv:2403.00409, eq. 12.

    Args:
        preferred: lr(y⁺) in nats, shape (B,).
        dispreferred: lr(y⁻) in nats, shape (B,).
        beta: Inverse temperature, > 0.
        error_rate: ε, the oracle's probability of error for each pair, in [0, ½), scalar or shape (B,).

    Returns:
        Loss per pair, shape (B,); log 2 where the policy equals the reference. Not bounded below for ε > 0.

    Example:
        >>> margin = torch.tensor([5.0]), torch.tensor([-5.0])
        >>> robust_loss(*margin, beta=0.1, error_rate=0.0)  # no errors: the same as dpo_loss
        tensor([0.3133])
    """
    right = dpo_loss(preferred, dispreferred, beta=beta)
    wrong = dpo_loss(dispreferred, preferred, beta=beta)
    return ((1 - error_rate) * right - error_rate * wrong) / (1 - 2 * error_rate)


def npo_loss(logratios: Tensor, *, beta: float) -> Tensor:
    """Suppress responses, ever more gently the further they fall below the reference.

    −(2/β) log σ(−β lr(y)), Zhang et al. 2024, arXiv:2404.05868. Gradient ascent in the limit β → 0. TRACE
    prints it without the factor 2/β.

    Args:
        logratios: lr(y) of the responses to suppress, in nats, shape (B,).
        beta: Inverse temperature, > 0.

    Returns:
        Loss per response, shape (B,); 2 log(2)/β where the policy equals the reference.

    Example:
        >>> npo_loss(torch.tensor([0.0, -20.0]), beta=0.1)  # at the reference, and 20 nats below it
        tensor([13.8629,  2.5386])
    """
    return -2 / beta * F.logsigmoid(-beta * logratios)


def correction_loss(correction: Tensor, chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """Prefer a correction over both violating responses of a PUNISH pair (TRACE's term and its twin).

    −log σ(β Δ(y_c, y_w)) − log σ(β Δ(y_c, y_l))

    Args:
        correction: lr(y_c) in nats, shape (B,).
        chosen: lr(y_w) in nats, shape (B,).
        rejected: lr(y_l) in nats, shape (B,).
        beta: Inverse temperature, > 0.

    Returns:
        Loss per pair, shape (B,); 2 log 2 where the policy equals the reference.
    """
    return dpo_loss(correction, chosen, beta=beta) + dpo_loss(correction, rejected, beta=beta)


def apo_down_loss(preferred: Tensor, dispreferred: Tensor, *, beta: float) -> Tensor:
    """Lower both responses, the worse one more (D'Oosterlinck et al. 2024, arXiv:2408.06266, APO-down).

    σ(β lr(y⁺)) + 1 − σ(β Δ(y⁺, y⁻))

    Args:
        preferred: lr of the less bad response in nats, shape (B,).
        dispreferred: lr of the worse response in nats, shape (B,).
        beta: Inverse temperature, > 0.

    Returns:
        Loss per pair in (0, 2), shape (B,); 1 where the policy equals the reference.
    """
    return torch.sigmoid(beta * preferred) + 1 - torch.sigmoid(beta * (preferred - dispreferred))


def ascent_loss(logprob: Tensor, length: Tensor) -> Tensor:
    """Suppress a response by gradient ascent on its likelihood: the forgetting half of GradDiff.

    log π_θ(y|x) / |y|, Liu et al. 2022, arXiv:2203.12817; as in TOFU, Maini et al. 2024, arXiv:2401.06121,
    section 4.1.

    Args:
        logprob: log π_θ(y|x) in nats, summed over tokens, shape (B,).
        length: Response tokens, shape (B,).

    Returns:
        Loss per response in nats per token, shape (B,), ≤ 0 and not bounded below.

    Example:
        >>> ascent_loss(torch.tensor([-30.0]), torch.tensor([20]))  # 30 nats over 20 tokens
        tensor([-1.5000])
    """
    return logprob / length


def anchor_loss(logprob: Tensor, length: Tensor) -> Tensor:
    """Keep the preferred answer likely, so that a growing margin cannot mean that every answer sinks.

    −log π_θ(y⁺|x) / |y⁺|, the NLL term of iterative RPO (Pang et al. 2024, arXiv:2404.19733). Not in TRACE.

    Args:
        logprob: log π_θ(y⁺|x) in nats, summed over tokens, shape (B,).
        length: Response tokens, shape (B,).

    Returns:
        Loss per response in nats per token, shape (B,), ≥ 0.

    Example:
        >>> anchor_loss(torch.tensor([-30.0]), torch.tensor([20]))  # 30 nats over 20 tokens
        tensor([1.5000])
    """
    return -logprob / length
