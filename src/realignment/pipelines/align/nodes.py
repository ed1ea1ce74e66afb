"""Nodes of the pipeline `align`."""

from pathlib import Path
from typing import Any

import pandas as pd

from realignment.parameters import AlignParameters
from realignment.parameters.base import ModelParameters
from realignment.policy import Policy
from realignment.tracking import registry


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
