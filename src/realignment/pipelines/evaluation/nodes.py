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


def collect_prompts(
    evaluation_prompts: pd.DataFrame,
    training_pairs: pd.DataFrame,
    gold_batch: pd.DataFrame,
    held_out_pairs: pd.DataFrame,
    gold_manifest: dict[str, Any],
    training_manifest: dict[str, Any],
    labelled_answers: pd.DataFrame,
    policy: Policy,
    judging: JudgingParameters,
    parameters: EvaluationParameters,
) -> pd.DataFrame:
    """Collect the prompts of the split, none of them in the pairs, and those of the held-out pairs."""
    from realignment.evaluation import answers, judges

    _check_held_out(held_out_pairs, gold_manifest, training_manifest)
    prompts = answers.select_prompts(
        evaluation_prompts,
        pd.concat([training_pairs, gold_batch, held_out_pairs], ignore_index=True),
        split=parameters.split,
        max_similarity=parameters.max_prompt_similarity,
    )
    judged = judges.can_judge(labelled_answers, policy, judging, parameters)
    return answers.collect_prompts(prompts, held_out_pairs, judged=judged)


def answer_prompts(
    prompts: pd.DataFrame,
    reference_model: dict[str, Any],
    realigned_model: str,
    model_parameters: ModelParameters,
    parameters: EvaluationParameters,
    seed: int,
) -> pd.DataFrame:
    """Generate the answers of both models, to evaluation prompts or to attacks."""
    from realignment.evaluation import answers

    models = {"before": reference_model["path"], "after": realigned_model}
    return answers.generate_answers(prompts, models, model_parameters, parameters, seed=seed)


def collect_attacks(
    attacks: list[Any],
    behaviours: pd.DataFrame,
    evaluation_prompts: pd.DataFrame,
    training_pairs: pd.DataFrame,
    gold_batch: pd.DataFrame,
    held_out_pairs: pd.DataFrame,
    labelled_answers: pd.DataFrame,
    policy: Policy,
    judging: JudgingParameters,
    parameters: EvaluationParameters,
) -> pd.DataFrame:
    """Wrap every behaviour, none of them in the pairs, in every attack."""
    from realignment.evaluation import judges
    from realignment.evaluation.attacks.behaviours import collect_attack_prompts

    return collect_attack_prompts(
        attacks,
        policy,
        behaviours,
        evaluation_prompts,
        pd.concat([training_pairs, gold_batch, held_out_pairs], ignore_index=True),
        parameters,
        judged=judges.can_judge(labelled_answers, policy, judging, parameters),
    )


def judge_attacks(
    attack_answers: pd.DataFrame,
    labelled_answers: pd.DataFrame,
    policy: Policy,
    judging: JudgingParameters,
    parameters: EvaluationParameters,
    seed: int,
) -> pd.DataFrame:
    """Judge every answer to an attack as an answer to the plain request."""
    from realignment.evaluation import judges
    from realignment.evaluation.attacks import rubric, success

    if attack_answers.empty:
        return attack_answers
    chosen = judges.build_judges(labelled_answers, policy, judging=judging, parameters=parameters, seed=seed)
    responses = success.judge_attacks(attack_answers, chosen.oracles, policy)
    if parameters.attacks.rubric is not None:
        responses = rubric.add_scores(responses, policy, parameters.attacks.rubric)
    return responses


def judge_answers(
    answers: pd.DataFrame,
    labelled_answers: pd.DataFrame,
    policy: Policy,
    judging: JudgingParameters,
    parameters: EvaluationParameters,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Judge every answer with every judge, and report how good each judge is and which one leads."""
    from realignment.evaluation import judges, measures

    chosen = judges.build_judges(labelled_answers, policy, judging=judging, parameters=parameters, seed=seed)
    report = judges.measure_judges(chosen, labelled_answers, policy, folds=parameters.folds, seed=seed)
    responses = measures.judge_responses(answers, chosen.oracles, policy)
    names = report["judges"]
    report["headline"] = judges.pick_headlines(answers, report)
    report["unscored"] = measures.count_unscored(responses, names)
    report["between_judges"] = measures.compare_judges(responses, names)
    return responses, report


def compare_answers(
    answers: pd.DataFrame, policy: Policy, parameters: EvaluationParameters, seed: int
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Compare the answers of both models blindly, in both orders, and report the win rates."""
    from realignment.evaluation.win_rates import figures, model_comparators

    settings = parameters.win_rate
    comparator = model_comparators.build_comparator(settings)
    return figures.measure_win_rates(
        answers, ("before", "after"), comparator, policy, resamples=settings.resamples, seed=seed
    )


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
    """Score both models on every question of every task, and on every document of the text."""
    from realignment.evaluation import capability

    models = {"before": reference_model["path"], "after": realigned_model}
    return capability.compare_models(models, model_parameters, parameters.capability)


def tabulate(
    responses: pd.DataFrame,
    evaluation_judge: dict[str, Any],
    held_out_scores: pd.DataFrame,
    capability_scores: pd.DataFrame,
    attack_responses: pd.DataFrame,
    policy: Policy,
    old_policy: Policy,
    seed: int,
    win_rates: dict[str, Any],
) -> pd.DataFrame:
    """Tabulate every figure before and after, with n, a 95 % interval and a paired test."""
    from realignment.evaluation import table

    rng = np.random.default_rng(seed)
    quality = evaluation_judge.get("quality")
    return table.tabulate(
        responses,
        held_out_scores,
        capability_scores,
        policy,
        old_policy,
        quality=quality,
        win_rates=win_rates,
        rng=rng,
        attack_responses=attack_responses,
    )


def draw_agreement(evaluation_table: pd.DataFrame) -> go.Figure:
    """Draw agreement and over-refusal before and after, with intervals."""
    from realignment import reports

    return reports.draw_agreement(evaluation_table)
