"""Alignment impact weights (method.md, section 5): how much training on a conflict serves the gold batch."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor

from realignment.objective.examples import RESPONSES
from realignment.objective.hybrid import Example
from realignment.records import DataError, HealthError


def impact_weights(
    scores: Tensor,
    groups: list[str],
    *,
    normalize: Literal["mean_one", "l1", "uniform"],
    winsorize: float | None = None,
) -> Tensor:
    """Turn scores into weights w̃: negative impact gets weight zero, then the scale is set.

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
    tiny = torch.finfo(weights.dtype).tiny
    # One mask (N,) a disposition.
    masks = [torch.tensor([group == name for group in groups]) for name in sorted(set(groups))]
    for mask in masks:
        cap = 0.0 if winsorize is None else float(torch.quantile(weights[mask], winsorize))
        # Where nearly all weights are zero, so is the quantile: a cap would take the last ones.
        if cap > 0:
            weights[mask] = weights[mask].clamp(max=cap)
    if normalize == "l1":
        return weights / weights.sum().clamp(min=tiny)
    for mask in masks:
        total = weights[mask].sum().clamp(min=tiny)
        weights[mask] = weights[mask] * mask.sum() / total
    return weights


def check_scores(scores: Tensor, *, max_negative_share: float) -> None:
    """Stop the run where the gold batch opposes the tasks (method.md, section 10).

    Args:
        scores: Shape (N,).
        max_negative_share: Largest share of negative scores, in 0..1.

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
            f"positive (limit: {max_negative_share:.0%} negative): the gold batch opposes the tasks. Check "
            "the gold batch and the oracle's judgments, enlarge `gold.size`, or set `impact.normalize: "
            "uniform`."
        )


def attach_weights(
    conflicts: Sequence[Example],
    scored: Sequence[tuple[float, tuple[float, ...]]],
    dispositions: Sequence[str],
    *,
    normalize: Literal["mean_one", "l1", "uniform"],
    winsorize: float | None,
) -> list[Example]:
    """Return the conflicts with their weights and reference log-probabilities.

    Args:
        conflicts: N examples.
        scored: Score and log π_ref of each, from `impact.scoring.score_conflicts`.
        dispositions: Disposition of each.
        normalize: See `impact_weights`.
        winsorize: See `impact_weights`.

    Returns:
        Copies of the examples, in order.
    """
    scores = torch.tensor([score for score, _ in scored])
    weights = impact_weights(scores, list(dispositions), normalize=normalize, winsorize=winsorize)
    return [
        replace(example, weight=float(weight), reference=reference)
        for example, weight, (_, reference) in zip(conflicts, weights, scored, strict=True)
    ]


def tabulate_weights(
    weighted: Sequence[Example], scores: Sequence[float], dispositions: Sequence[str]
) -> pd.DataFrame:
    """Return the table `impact_weights`: one row a conflict.

    Args:
        weighted: Conflicts with weights and reference log-probabilities, from `attach_weights`.
        scores: Score of each.
        dispositions: Disposition of each.

    Returns:
        Columns pair_id, disposition, treatment, score, weight, and reference_chosen, reference_rejected,
        reference_correction: log π_ref in nats, NaN where the treatment has no such response.
    """
    rows = []
    for example, score, disposition in zip(weighted, scores, dispositions, strict=True):
        row: dict[str, Any] = {
            "pair_id": example.pair_id,
            "disposition": disposition,
            "treatment": example.treatment.name.lower(),
            "score": score,
            "weight": example.weight,
        }
        for column, reference in zip(RESPONSES[example.treatment], example.reference, strict=True):
            row[f"reference_{column}"] = reference
        rows.append(row)
    names = ["pair_id", "disposition", "treatment", "score", "weight"]
    names += ["reference_chosen", "reference_rejected", "reference_correction"]
    return pd.DataFrame(rows).reindex(columns=names)


def join_weights(examples: Sequence[Example], weights: pd.DataFrame) -> list[Example]:
    """Return the examples with weights and reference log-probabilities from the table `impact_weights`.

    Args:
        examples: All that is trained on; RETAIN pairs are not in the table and stay as they are.
        weights: See `tabulate_weights`.

    Returns:
        The examples, in order.

    Raises:
        DataError: A conflict has no row, or its row lacks a response of the treatment.
    """
    rows = {row["pair_id"]: row for row in weights.to_dict("records")}
    weighted: list[Example] = []
    missing_ids: list[str] = []
    incomplete_ids: list[str] = []
    for example in examples:
        row = rows.get(example.pair_id)
        if row is None:
            weighted.append(example)
            if example.treatment.is_conflict:
                missing_ids.append(example.pair_id)
            continue
        reference = tuple(float(row[f"reference_{column}"]) for column in RESPONSES[example.treatment])
        # NaN: the weight is that of another treatment of this pair.
        if any(map(math.isnan, reference)):
            incomplete_ids.append(example.pair_id)
        weighted.append(replace(example, weight=row["weight"], reference=reference))
    unusable_ids = missing_ids + incomplete_ids
    if unusable_ids:
        raise DataError(
            f"{len(unusable_ids)} conflicts have no impact weight for how they are to be trained (first: "
            f"{unusable_ids[0]}). Run `--pipelines impact` again with the same `loss.use_corrections`."
        )
    return weighted


def report_weights(weights: pd.DataFrame) -> dict[str, Any]:
    """Summarise the health of the weights by disposition.

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
