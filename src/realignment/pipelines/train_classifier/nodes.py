"""Nodes of the pipeline `train_classifier`."""

import logging
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from realignment.parameters import ClassifierParameters
from realignment.policy import Policy

logger = logging.getLogger(__name__)


def train_classifier(
    classifier_labels: pd.DataFrame, policy: Policy, parameters: ClassifierParameters, seed: int
) -> tuple[Any, dict[str, Any], pd.DataFrame, pd.DataFrame]:
    """Train a pipeline, or take a sequence classifier as it is; calibrate it, and measure it out of fold."""
    from realignment.evaluation import labelled
    from realignment.oracles.classifier_validation import (
        report_validation,
        tabulate_folds,
        tabulate_reliability,
    )
    from realignment.oracles.train_classifier import train_judge

    exchanges, labels = labelled.labelled_table(classifier_labels, policy)
    trained, validation = train_judge(exchanges, labels, policy, parameters, seed=seed)
    report = report_validation(validation, exchanges, labels, seed=seed)
    figures = report["calibrated"]
    logger.info(
        "Out of fold, on %d labels: accuracy %.3f, AUC %.3f, ECE %.3f",
        report["n"], figures["accuracy"]["value"], figures["auc"]["value"], figures["ece"]["value"],
    )  # fmt: skip
    folds = tabulate_folds(validation, labels)
    return trained, report, folds, tabulate_reliability(validation, labels)


def draw_classifier_reliability(classifier_reliability: pd.DataFrame) -> go.Figure:
    """Draw how often the classifier is right, by its confidence."""
    from realignment.reports import audit

    return audit.draw_reliability(classifier_reliability)
