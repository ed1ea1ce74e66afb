"""Nodes of the pipeline `baselines`."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from realignment.parameters import BaselinesParameters, EvaluationParameters, JudgingParameters
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
    loss: dict[str, Any],
    impact: dict[str, Any],
    gold: dict[str, Any],
    training: dict[str, Any],
    method: str,
    parameters: BaselinesParameters,
    work_folder: str,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
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
    sections = {"loss": loss, "impact": impact, "gold": gold, "training": training}
    # All parameters are checked before the first training begins.
    cells = [
        (cell, Settings.of(cell, sections, parameters.overrides)) for cell in running.list_cells(parameters)
    ]
    records = running.run_cells(laboratory, cells, Path(parameters.cells_folder))
    return running.tabulate_items(records), running.tabulate_cells(records)
