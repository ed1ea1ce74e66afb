"""Nodes of the stage `evaluation`."""

import logging
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from realignment.parameters import EvaluationParameters, JudgingParameters, TrainingParameters
from realignment.parameters.base import ModelParameters
from realignment.policy import Policy
from realignment.tracking import lineage

logger = logging.getLogger(__name__)


def _check_held_out(pairs: pd.DataFrame, gold: lineage.Manifest, training: lineage.Manifest) -> None:
    lineage.check_tables(gold, {"held_out_pairs": pairs})
    lineage.check_model(training, gold)


def answer_prompts(
    evaluation_prompts: pd.DataFrame,
    training_pairs: pd.DataFrame,
    gold_batch: pd.DataFrame,
    held_out_pairs: pd.DataFrame,
    gold_manifest: dict[str, Any],
    training_manifest: dict[str, Any],
    policy: Policy,
    reference_model: dict[str, Any],
    realigned_model: str,
    model_parameters: ModelParameters,
    parameters: EvaluationParameters,
    seed: int,
) -> pd.DataFrame:
    """Generate both models' answers to the evaluation prompts and to those of the held-out pairs."""
    from realignment.evaluation import answers

    _check_held_out(held_out_pairs, gold_manifest, training_manifest)
    prompts = answers.select_prompts(
        evaluation_prompts,
        pd.concat([training_pairs, gold_batch, held_out_pairs], ignore_index=True),
        split=parameters.split,
        max_similarity=parameters.max_prompt_similarity,
    )
    collected = answers.collect_prompts(prompts, held_out_pairs, judged=bool(policy.checked_rules))
    models = {"before": reference_model["path"], "after": realigned_model}
    return answers.generate_answers(collected, models, model_parameters, parameters, seed=seed)


def judge_answers(
    answers: pd.DataFrame,
    pairs: pd.DataFrame,
    labelled_answers: pd.DataFrame,
    policy: Policy,
    judging: JudgingParameters,
    parameters: EvaluationParameters,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Judge every answer with the rules, and with a classifier that did not label the training data."""
    from realignment.evaluation import judges, measures

    labelled_by = {member.oracle for member in (judging, *judging.member_oracles())}
    oracles, report = judges.choose_judges(
        pairs, labelled_answers, policy, folds=parameters.folds, seed=seed, labelled_by=labelled_by
    )
    responses = measures.judge_responses(answers, oracles, policy)
    if len(oracles) > 1:
        report |= measures.judge_report(responses, [oracle.name for oracle in oracles])
    return responses, report


def score_held_out(
    held_out_pairs: pd.DataFrame,
    gold_manifest: dict[str, Any],
    training_manifest: dict[str, Any],
    reference_model: dict[str, Any],
    realigned_model: str,
    model_parameters: ModelParameters,
    training: TrainingParameters,
    parameters: EvaluationParameters,
) -> pd.DataFrame:
    """Score the held-out responses under both models, and measure the drift between the two."""
    from realignment.evaluation import held_out

    _check_held_out(held_out_pairs, gold_manifest, training_manifest)
    paths = (reference_model["path"], realigned_model)
    return held_out.score_held_out(
        held_out_pairs, paths, model_parameters, training.max_response_tokens, parameters
    )


def measure_capability(
    reference_model: dict[str, Any],
    realigned_model: str,
    model_parameters: ModelParameters,
    parameters: EvaluationParameters,
) -> pd.DataFrame:
    """Measure multiple-choice accuracy of both models, question by question (lm-evaluation-harness)."""
    from realignment.evaluation import capability

    models = {"before": reference_model["path"], "after": realigned_model}
    return capability.compare_models(models, model_parameters, parameters.capability)


def tabulate(
    responses: pd.DataFrame,
    evaluation_judge: dict[str, Any],
    held_out_scores: pd.DataFrame,
    capability_scores: pd.DataFrame,
    policy: Policy,
    old_policy: Policy,
    seed: int,
) -> pd.DataFrame:
    """Tabulate every figure before and after, with n, a 95 % interval and a paired test."""
    from realignment.evaluation import table

    rng = np.random.default_rng(seed)
    quality = evaluation_judge.get("quality")
    return table.tabulate(
        responses, held_out_scores, capability_scores, policy, old_policy, quality=quality, rng=rng
    )


def draw_agreement(evaluation_table: pd.DataFrame) -> go.Figure:
    """Draw agreement and over-refusal before and after, with intervals."""
    from realignment import reports

    return reports.draw_agreement(evaluation_table)
