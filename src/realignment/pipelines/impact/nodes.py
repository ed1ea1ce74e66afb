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
    """Impact weight and reference log-probabilities of every conflict that is trained on."""
    from realignment.impact.weights import report_weights
    from realignment.records import CONFLICTS
    from realignment.training import setup
    from realignment.training.online_weights import check_options

    check_options(parameters, training)
    lineage.check(gold_manifest, {"training_pairs": training_pairs, "gold_batch": gold_batch})
    conflicts = training_pairs[training_pairs["disposition"].isin(CONFLICTS)].reset_index(drop=True)
    begun = perf_counter()
    bench = setup.open_workbench(reference_model["path"], model_parameters, training, loss, seed=seed)
    table = bench.weigh(conflicts, gold_batch, parameters)
    report = report_weights(table) | {
        "gold": {"n": len(gold_batch), "composition": gold_batch["disposition"].value_counts().to_dict()},
        "seconds": perf_counter() - begun,
    }
    facts = {key: gold_manifest[key] for key in ("policy", "policy_version", "oracle")}
    inputs = {
        "training_pairs": training_pairs,
        "gold_batch": gold_batch,
        "reference_model": reference_model["sha256"],
    }
    outputs = {"impact_weights": table, "training_pairs": training_pairs, "gold_batch": gold_batch}
    return table, report, lineage.seal("impact", inputs=inputs, outputs=outputs, seed=seed, **facts)


def draw_impact_weights(impact_weights: pd.DataFrame) -> go.Figure:
    """Distribution of scores and weights per disposition."""
    from realignment import reports

    return reports.impact_weights(impact_weights)
