"""Alignment impact weights (method.md, section 5): how much training on a conflict serves the gold batch."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor

from realignment.objective.examples import RESPONSES
from realignment.objective.hybrid import Example
from realignment.records import HealthError


def impact_weights(
    scores: Tensor,
    groups: list[str],
    *,
    normalize: Literal["mean_one", "l1", "uniform"],
    winsorize: float | None = None,
) -> Tensor:
    """w̃ from s: negative impact gets weight zero, then the scale is set.

    Args:
        scores: s_i, shape (N,).
        groups: Disposition of each pair, length N.
        normalize: ``mean_one``: w̃ = w N_d / Σ_d w in each disposition d, so that α_KL means what it says.
            ``l1``: w̃ = w / Σ w over all (the paper's). ``uniform``: 1 for every pair.
        winsorize: Quantile in (0, 1] that caps the largest weights of a disposition, where it is above zero;
            None: no cap.

    Returns:
        Weights ≥ 0, shape (N,). A disposition whose scores are all ≤ 0 has weight zero throughout.
    """
    if normalize == "uniform":
        return torch.ones_like(scores)
    weights = scores.clamp(min=0)
    members = {group: torch.tensor([g == group for g in groups]) for group in sorted(set(groups))}
    for member in members.values():
        cap = 0.0 if winsorize is None else float(torch.quantile(weights[member], winsorize))
        if cap > 0:  # where nearly all weights are zero, so is the quantile, and would take the last ones
            weights[member] = weights[member].clamp(max=cap)
    if normalize == "l1":
        return weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
    for member in members.values():
        total = weights[member].sum().clamp(min=torch.finfo(weights.dtype).tiny)
        weights[member] = weights[member] * member.sum() / total
    return weights


def check_scores(scores: Tensor, *, max_negative_share: float) -> None:
    """Stop where the gold batch opposes the tasks (method.md, section 10).

    Raises:
        HealthError: A score is not finite, none is positive, or too many are negative.
    """
    if not torch.isfinite(scores).all():
        raise HealthError(
            f"{int((~torch.isfinite(scores)).sum())} of {len(scores)} impact scores are not finite: the "
            "model overflows on these pairs. Use float32 (`model.dtype`) or drop them."
        )
    negative = float((scores < 0).float().mean())
    if not (scores > 0).any() or negative > max_negative_share:
        raise HealthError(
            f"{negative:.0%} of {len(scores)} impact scores are negative and {int((scores > 0).sum())} "
            f"positive (limit: {max_negative_share:.0%} negative): the gold batch opposes the tasks. Look at "
            "the gold batch and the oracle's judgments, enlarge `gold.size`, or set `impact.normalize: "
            "uniform`."
        )


def weigh(
    conflicts: Sequence[Example],
    scored: Sequence[tuple[float, tuple[float, ...]]],
    dispositions: Sequence[str],
    *,
    normalize: Literal["mean_one", "l1", "uniform"],
    winsorize: float | None,
) -> list[Example]:
    """The examples with their weights and reference log-probabilities."""
    scores = torch.tensor([score for score, _ in scored])
    weights = impact_weights(scores, list(dispositions), normalize=normalize, winsorize=winsorize)
    return [
        replace(example, weight=float(weight), reference=reference)
        for example, weight, (_, reference) in zip(conflicts, weights, scored, strict=True)
    ]


def report_weights(weights: pd.DataFrame) -> dict[str, Any]:
    """Health of the weights by disposition.

    Args:
        weights: Columns disposition, score, weight.

    Returns:
        Disposition → n, positive, negative, zero, mean_score, median_score, max_weight,
        effective_sample_size.
    """
    report = {}
    for disposition, part in weights.groupby("disposition"):
        score, weight = part["score"], part["weight"]
        squares = float((weight**2).sum())
        report[str(disposition)] = {
            "n": len(part),
            "positive": int((score > 0).sum()),
            "negative": int((score < 0).sum()),
            "zero": int((score == 0).sum()),
            "mean_score": float(score.mean()),
            "median_score": float(score.median()),
            "max_weight": float(weight.max()),
            "effective_sample_size": float(weight.sum()) ** 2 / squares if squares else 0.0,
        }
    return report


def to_table(
    weighed: Sequence[Example], scores: Sequence[float], dispositions: Sequence[str]
) -> pd.DataFrame:
    """The table `impact_weights`: one row a conflict, with score, weight and reference log-probabilities."""
    rows = []
    for example, score, disposition in zip(weighed, scores, dispositions, strict=True):
        columns = RESPONSES[example.treatment]
        references = dict(zip((f"reference_{c}" for c in columns), example.reference, strict=True))
        rows.append(
            {
                "pair_id": example.pair_id,
                "disposition": disposition,
                "treatment": example.treatment.name.lower(),
                "score": score,
                "weight": example.weight,
            }
            | references
        )
    names = ["pair_id", "disposition", "treatment", "score", "weight"]
    names += [f"reference_{name}" for name in ("chosen", "rejected", "correction")]
    return pd.DataFrame(rows).reindex(columns=names)
