"""Nodes of the stage `impact`."""

import logging
from time import perf_counter
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from realignment.parameters import ImpactParameters, LossParameters, TrainingParameters
from realignment.parameters.base import ModelParameters
from realignment.tracking import lineage

logger = logging.getLogger(__name__)


def weigh_conflicts(
    training_pairs: pd.DataFrame,
    gold_batch: pd.DataFrame,
    gold_manifest: dict[str, Any],
    reference_model: dict[str, Any],
    model_parameters: ModelParameters,
    loss: LossParameters,
    training: TrainingParameters,
    parameters: ImpactParameters,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, Any], dict[str, Any]]:
    """Compute impact weight and reference log-probabilities of every conflict that is trained on."""
    from realignment.impact.weights import report_weights
    from realignment.records import CONFLICTS
    from realignment.training.online_weights import check_options
    from realignment.training.setup import load_training_setup

    check_options(parameters, training, loss)
    lineage.check_tables(gold_manifest, {"training_pairs": training_pairs, "gold_batch": gold_batch})
    conflicts = training_pairs[training_pairs["disposition"].isin(CONFLICTS)].reset_index(drop=True)
    start = perf_counter()
    setup = load_training_setup(reference_model["path"], model_parameters, training, loss, seed=seed)
    table = setup.compute_weights(conflicts, gold_batch, parameters)
    seconds = perf_counter() - start
    gold = {"n": len(gold_batch), "composition": gold_batch["disposition"].value_counts().to_dict()}
    report = report_weights(table) | {"gold": gold, "seconds": seconds}
    facts = lineage.inherited_facts(gold_manifest)
    # Training checks both tables against this manifest, so they are among its outputs too.
    tables = {"training_pairs": training_pairs, "gold_batch": gold_batch}
    inputs = {**tables, "reference_model": reference_model["sha256"]}
    outputs = {"impact_weights": table, **tables}
    return table, report, lineage.build_manifest("impact", inputs=inputs, outputs=outputs, seed=seed, **facts)


def draw_impact_weights(impact_weights: pd.DataFrame) -> go.Figure:
    """Draw the distribution of scores and weights per disposition."""
    from realignment import reports

    return reports.draw_impact_weights(impact_weights)
