"""Nodes of the pipeline `align`."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from realignment.parameters import AlignParameters, EvaluationParameters
from realignment.parameters.base import ModelParameters
from realignment.policy import Policy
from realignment.tracking import registry


def hold_out_old_pairs(
    pairs: pd.DataFrame, parameters: AlignParameters, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Keep all pairs of some prompts from the training."""
    from realignment.align.held_out import hold_out_prompts

    return hold_out_prompts(pairs, share=parameters.held_out_share, seed=seed)


def align_model(
    pairs: pd.DataFrame,
    base_model: dict[str, Any],
    model_parameters: ModelParameters,
    parameters: AlignParameters,
    seed: int,
    work_folder: str,
) -> tuple[str, pd.DataFrame]:
    """Train by DPO on the old labels, with TRL's trainer: chosen over rejected, as annotated."""
    from realignment.align.dpo import align

    return align(
        pairs, base_model["path"], model_parameters, parameters, seed=seed, work_folder=Path(work_folder)
    )


def score_old_labels(
    held_out_pairs: pd.DataFrame,
    base_model: dict[str, Any],
    aligned_model: str,
    model_parameters: ModelParameters,
    parameters: AlignParameters,
    evaluation: EvaluationParameters,
) -> pd.DataFrame:
    """Score both responses of every held-out pair under the base and the aligned model."""
    from realignment.evaluation.teacher_forced import score_responses

    return score_responses(
        held_out_pairs,
        [("chosen", "rejected")] * len(held_out_pairs),
        (base_model["path"], aligned_model),
        model_parameters,
        max_response_tokens=parameters.max_length,
        token_budget=evaluation.token_budget,
        progress="Held-out old labels",
    ).drop(columns="pair")


def tabulate_alignment(scores: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Tabulate the preference of the old labels before and after, and log whether it was learnt."""
    from realignment.evaluation.old_labels import log_verdict, tabulate_old_labels

    table = tabulate_old_labels(scores, np.random.default_rng(seed))
    log_verdict(table)
    return table


def register_aligned_model(
    aligned_model: str, base_model: dict[str, Any], old_policy: Policy, parameters: AlignParameters
) -> dict[str, Any]:
    """Register M_ref, so that `realign` can start from it (`--params model.source=models:/NAME@champion`)."""
    tags = {
        "policy_name": old_policy.name,
        "policy_version": old_policy.version,
        "policy_digest": old_policy.digest,
        "base_model": base_model["source"],
    }
    return dict(
        registry.register_checkpoint(
            Path(aligned_model), name=parameters.registered_model, tags=tags, passed=True
        )
    )
