"""Nodes of the stage `training`."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from realignment.parameters import ImpactParameters, LossParameters, TrainingParameters
from realignment.parameters.base import ModelParameters
from realignment.tracking import lineage

logger = logging.getLogger(__name__)


def train_model(
    training_pairs: pd.DataFrame,
    gold_batch: pd.DataFrame,
    impact_weights: pd.DataFrame,
    impact_manifest: dict[str, Any],
    reference_model: dict[str, Any],
    model_parameters: ModelParameters,
    loss: LossParameters,
    parameters: TrainingParameters,
    impact: ImpactParameters,
    seed: int,
    work_folder: str,
) -> tuple[str, pd.DataFrame, dict[str, Any]]:
    """Train with the hybrid objective; an interrupted run resumes from its last checkpoint."""
    from realignment.training.setup import load_training_setup

    tables = {"impact_weights": impact_weights, "training_pairs": training_pairs, "gold_batch": gold_batch}
    lineage.check_tables(impact_manifest, tables)
    setup = load_training_setup(reference_model["path"], model_parameters, parameters, loss, seed=seed)
    key = lineage.compute_run_key(impact_manifest, model_parameters, loss, parameters, impact, seed)
    batch = setup.build_weighted_examples(training_pairs, impact_weights)
    online_weights = setup.online_weights(gold_batch, impact)
    folder, history = setup.train(
        batch, work_folder=Path(work_folder), key=key, online_weights=online_weights
    )
    facts = lineage.inherited_facts(impact_manifest)
    inputs = {**impact_manifest["outputs"], "reference_model": reference_model["sha256"]}
    manifest = lineage.build_manifest(
        "training", inputs=inputs, outputs={"training_history": history}, seed=seed, **facts
    )
    return folder, history, manifest


def draw_training_curves(training_history: pd.DataFrame) -> go.Figure:
    """Draw losses, log-ratios of good, bad and retained answers, and drift, by step."""
    from realignment import reports

    return reports.draw_training_curves(training_history)
