"""Nodes of the pipeline `baselines`."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from realignment.parameters import (
    BaselinesParameters,
    EvaluationParameters,
    GoldParameters,
    ImpactParameters,
    JudgingParameters,
    LossParameters,
    TrainingParameters,
)
from realignment.parameters.base import ModelParameters
from realignment.policy import Policy
from realignment.tracking import lineage

logger = logging.getLogger(__name__)


def run_cells(
    invert_pairs: pd.DataFrame,
    corrected_pairs: pd.DataFrame,
    retain_pairs: pd.DataFrame,
    corrections_manifest: dict[str, Any],
    evaluation_prompts: pd.DataFrame,
    labelled_answers: pd.DataFrame,
    policy: Policy,
    reference_model: dict[str, Any],
    model_parameters: ModelParameters,
    judging: JudgingParameters,
    evaluation: EvaluationParameters,
    loss: LossParameters,
    impact: ImpactParameters,
    gold: GoldParameters,
    training: TrainingParameters,
    method: str,
    parameters: BaselinesParameters,
    work_folder: str,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Train and measure every method with every seed; finished cells are kept and not repeated."""
    from realignment import methods
    from realignment.baselines import running
    from realignment.baselines.cells import Laboratory, Settings
    from realignment.baselines.sets import build_set
    from realignment.evaluation import judges

    if method != methods.DEFAULT:
        raise methods.MethodError(
            f"`baselines` takes its methods from `baselines.methods`; found `method={method}` besides. Leave "
            "it out."
        )
    splits = {"invert_pairs": invert_pairs, "corrected_pairs": corrected_pairs, "retain_pairs": retain_pairs}
    lineage.check_tables(corrections_manifest, splits)
    triaged = pd.concat(splits.values(), ignore_index=True)
    comparison = build_set(triaged, evaluation_prompts, parameters.set, evaluation)
    chosen = judges.build_judges(labelled_answers, policy, judging=judging, parameters=evaluation, seed=seed)
    report = judges.measure_judges(chosen, labelled_answers, policy, folds=evaluation.folds, seed=seed)
    report["headline"] = judges.pick_headlines(comparison.prompts, report)
    laboratory = Laboratory(
        comparison,
        policy,
        chosen.oracles,
        reference_model["path"],
        model_parameters,
        parameters,
        evaluation,
        str(Path(work_folder) / "baselines"),
    )
    groups = {"loss": loss, "impact": impact, "gold": gold, "training": training}
    sections = {name: group.model_dump(mode="json") for name, group in groups.items()}
    # All parameters are checked before the first training begins.
    cells = [
        (cell, Settings.of(cell, sections, parameters.overrides)) for cell in running.list_cells(parameters)
    ]
    records = running.run_cells(laboratory, cells, Path(parameters.cells_folder))
    return running.tabulate_items(records), running.tabulate_cells(records), report


def compare_methods(
    baseline_items: pd.DataFrame,
    baseline_cells: pd.DataFrame,
    baseline_judges: dict[str, Any],
    parameters: BaselinesParameters,
) -> tuple[pd.DataFrame, str, str, go.Figure]:
    """Tabulate, draw and write up what the cells show."""
    from realignment.baselines import figures, html_page, page, reporting, running, tables

    items = baseline_items.fillna({"judge": "", "variant": ""})
    cells = baseline_cells.fillna({"variant": "", "reason": ""})
    leading = {metric: headline["judge"] for metric, headline in baseline_judges["headline"].items()}
    planned = running.list_cells(parameters)
    comparison = reporting.compare_cells(items, cells, planned, leading, parameters)
    table = tables.methods_table(items, cells)
    text = page.render_markdown(comparison)
    figure = figures.draw_tradeoffs(comparison, parameters.set.name)
    return table, text, html_page.render_html(comparison), figure
