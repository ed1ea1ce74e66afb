"""Nodes of the pipeline `evaluate`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from realignment.model.fetching import fetch_model
from realignment.model.store import ModelReference
from realignment.parameters import EvaluationParameters, JudgingParameters, ModelsParameters
from realignment.parameters.base import ModelParameters
from realignment.policy import Policy


def fetch_models(
    models: ModelsParameters, parameters: ModelParameters, evaluation: EvaluationParameters
) -> tuple[dict[str, Any], str]:
    """Fetch both models into their folders; where a server answers, only if their weights are measured."""
    if evaluation.server is not None and not evaluation.capability.needs_weights:
        name, _ = evaluation.server.describe_models()
        return asdict(ModelReference(name, path="", sha256="")), ""
    folder = Path(parameters.folder)
    before, after = (fetch_model(source, folder=folder) for source in models.sources())
    return asdict(before), after.path


def collect_prompts(
    evaluation_prompts: pd.DataFrame,
    labelled_answers: pd.DataFrame,
    policy: Policy,
    judging: JudgingParameters,
    parameters: EvaluationParameters,
) -> pd.DataFrame:
    """Collect the prompts of the split; without training there are no pairs to keep them apart from."""
    from realignment.evaluation import answers, judges

    no_pairs = pd.DataFrame(columns=["pair_id", "prompt", "messages", "domain", "disposition"])
    prompts = answers.select_prompts(
        evaluation_prompts, no_pairs, split=parameters.split, max_similarity=parameters.max_prompt_similarity
    )
    judged = judges.can_judge(labelled_answers, policy, judging, parameters)
    return answers.collect_prompts(prompts, no_pairs, judged=judged)


def collect_attacks(
    attacks: list[Any],
    behaviours: pd.DataFrame,
    evaluation_prompts: pd.DataFrame,
    labelled_answers: pd.DataFrame,
    policy: Policy,
    judging: JudgingParameters,
    parameters: EvaluationParameters,
) -> pd.DataFrame:
    """Wrap every behaviour in every attack; without training there are no pairs to keep them apart from."""
    from realignment.evaluation import judges
    from realignment.evaluation.attacks.behaviours import collect_attack_prompts

    judged = judges.can_judge(labelled_answers, policy, judging, parameters)
    return collect_attack_prompts(
        attacks, policy, behaviours, evaluation_prompts, None, parameters, judged=judged
    )


def tabulate(
    responses: pd.DataFrame,
    evaluation_judge: dict[str, Any],
    capability_scores: pd.DataFrame,
    policy: Policy,
    old_policy: Policy,
    seed: int,
    win_rates: dict[str, Any],
    attack_responses: pd.DataFrame,
) -> pd.DataFrame:
    """Tabulate every figure of both models, with n, a 95 % interval and a paired test."""
    from realignment.evaluation import table

    return table.tabulate(
        responses,
        None,
        capability_scores,
        policy,
        old_policy,
        quality=evaluation_judge.get("quality"),
        rng=np.random.default_rng(seed),
        win_rates=win_rates,
        attack_responses=attack_responses,
    )


def write_report(
    policy: Policy,
    models: ModelsParameters,
    responses: pd.DataFrame,
    evaluation_table: pd.DataFrame,
    evaluation_figure: Any,
    evaluation_judge: dict[str, Any],
    win_rates: dict[str, Any],
    evaluation: EvaluationParameters,
    parameters: dict[str, Any],
) -> str:
    """Write one self-contained page: who answers better under the policy, by whose verdict."""
    from realignment import reports

    before, after = models.sources() if evaluation.server is None else evaluation.server.describe_models()
    page: str = reports.render_report(
        reports.RunResults(
            title=f"{policy.name} {policy.version}: two models compared",
            subtitle=f"before: {before}, after: {after}",
            responses=reports.pick_answers(responses),
            evaluation_table=evaluation_table,
            evaluation_figure=evaluation_figure,
            evaluation_judge=evaluation_judge,
            win_rates=win_rates,
            parameters=parameters,
        )
    )
    return page
