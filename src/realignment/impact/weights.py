"""Alignment impact weights (method.md, section 5): how much training on a conflict serves the gold batch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor

from realignment.objective.hybrid import Example, Treatment
from realignment.records import DataError, HealthError

Normalization = Literal["mean_one", "l1", "clamped", "uniform"]


def impact_weights(
    scores: Tensor,
    groups: Sequence[int],
    *,
    normalize: Normalization,
    winsorize: float | None = None,
) -> Tensor:
    """Turn scores into weights w̃: negative impact gets weight zero, then the scale is set.

    Args:
        scores: s_i, shape (N,).
        groups: `Treatment` of each pair, length N. Scores of different losses are on different scales, so
            they are normalised apart: corrected and suppressed PUNISH pairs too.
        normalize: ``mean_one``: w̃ = w N_g / Σ_g w in each group g, so that α_KL means what it says.
            ``l1``: w̃ = w / Σ w over all (the paper's). ``clamped``: 1 where s > 0, else 0. ``uniform``: 1 for
            every pair.
        winsorize: Quantile in (0, 1] that caps the largest weights of a group, where it is above zero;
            None: no cap.

    Returns:
        Weights ≥ 0, shape (N,). A group whose scores are all ≤ 0 has weight zero throughout.
    """
    if normalize == "uniform":
        return torch.ones_like(scores)
    if normalize == "clamped":
        return (scores > 0).to(scores.dtype)
    weights = scores.clamp(min=0)
    tiny = torch.finfo(weights.dtype).tiny
    kinds = torch.tensor(list(map(int, groups)))
    masks = [kinds == kind for kind in kinds.unique()]  # one mask (N,) a group
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


def check_scores(scores: Tensor, treatments: Sequence[Treatment], *, max_negative_share: float) -> None:
    """Stop the run where the gold batch opposes a task (method.md, section 10).

    Each treatment is checked by itself: many good scores of one would hide that all of another are negative.

    Args:
        scores: Shape (N,).
        treatments: Of each pair.
        max_negative_share: Largest share of negative scores of a treatment, in 0..1; 1 lets all pass.

    Raises:
        HealthError: A score is not finite, or a treatment has no positive or too many negative scores.
    """
    if not torch.isfinite(scores).all():
        raise HealthError(
            f"{int((~torch.isfinite(scores)).sum())} of {len(scores)} impact scores are not finite: the "
            "model overflows on these pairs. Use float32 (`model.dtype`) or drop them."
        )
    kinds = torch.tensor(list(map(int, treatments)))
    for kind in kinds.unique().tolist():
        members = scores[kinds == kind]
        negative = float((members < 0).float().mean())
        is_useful = bool((members > 0).any()) or max_negative_share == 1
        if is_useful and negative <= max_negative_share:
            continue
        raise HealthError(
            f"{negative:.0%} of {len(members)} impact scores of `{Treatment(kind).name.lower()}` pairs are "
            f"negative and {int((members > 0).sum())} positive (limit: {max_negative_share:.0%} negative): "
            "the gold batch opposes this task. Check the gold batch and the oracle's judgments, enlarge "
            "`gold.size`, or set `impact.normalize: uniform`."
        )


def attach_weights(
    conflicts: Sequence[Example],
    scored: Sequence[tuple[float, tuple[float, ...]]],
    *,
    normalize: Normalization,
    winsorize: float | None,
) -> list[Example]:
    """Return the conflicts with their weights and reference log-probabilities.

    Args:
        conflicts: N examples.
        scored: Score and log π_ref of each, from `impact.scoring.score_conflicts`.
        normalize: See `impact_weights`.
        winsorize: See `impact_weights`.

    Returns:
        Copies of the examples, in order.
    """
    scores = torch.tensor([score for score, _ in scored])
    treatments = [example.treatment for example in conflicts]
    weights = impact_weights(scores, treatments, normalize=normalize, winsorize=winsorize)
    return [
        replace(example, weight=float(weight), reference=reference)
        for example, weight, (_, reference) in zip(conflicts, weights, scored, strict=True)
    ]


def tabulate_weights(
    weighted: Sequence[Example], scores: Sequence[float], dispositions: Mapping[str, str]
) -> pd.DataFrame:
    """Return the table `impact_weights`: one row a conflict.

    Args:
        weighted: Conflicts with weights and reference log-probabilities, from `attach_weights`.
        scores: Score of each; NaN where none was computed.
        dispositions: pair_id → disposition.

    Returns:
        Columns pair_id, disposition, treatment, score, weight, and reference_chosen, reference_rejected,
        reference_correction: log π_ref in nats, NaN where the treatment has no such response.
    """
    rows = []
    for example, score in zip(weighted, scores, strict=True):
        row: dict[str, Any] = {
            "pair_id": example.pair_id,
            "disposition": dispositions[example.pair_id],
            "treatment": example.treatment.name.lower(),
            "score": score,
            "weight": example.weight,
        }
        for column, reference in zip(example.columns, example.reference, strict=True):
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
        reference = tuple(float(row[f"reference_{column}"]) for column in example.columns)
        # NaN: the weight is that of another treatment of this pair.
        if any(map(math.isnan, reference)):
            incomplete_ids.append(example.pair_id)
        weighted.append(replace(example, weight=row["weight"], reference=reference))
    unusable_ids = missing_ids + incomplete_ids
    if unusable_ids:
        raise DataError(
            f"{len(unusable_ids)} conflicts have no impact weight for how they are to be trained (first: "
            f"{unusable_ids[0]}). Run `--pipelines impact` again with the same `loss.use_corrections` and "
            "`loss.plans`."
        )
    return weighted


def report_weights(weights: pd.DataFrame) -> dict[str, Any]:
    """Summarise the health of the weights by disposition.

    Args:
        weights: Columns disposition, score, weight.

    Returns:
        Disposition → n, positive, negative, zero, mean_score, median_score (of scores: zero and NaN where
        weights are uniform and none was computed), max_weight, effective_sample_size.
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
