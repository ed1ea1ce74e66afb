"""Nodes of the pipelines `win_rate_export` and `win_rate_import`."""

import logging
from typing import Any

import pandas as pd

from realignment.parameters import EvaluationParameters, ReviewParameters
from realignment.policy import Policy

logger = logging.getLogger(__name__)


def pair_answers(
    answers: pd.DataFrame, policy: Policy, parameters: EvaluationParameters, seed: int
) -> pd.DataFrame:
    """Pair the answers of both models in a random order: the key, which people do not see."""
    from realignment.review import comparisons

    return comparisons.pair_answers(
        answers, ("before", "after"), policy, limit=parameters.win_rate.people, seed=seed
    )


def write_comparison_forms(
    win_rate_key: pd.DataFrame, policy: Policy
) -> tuple[pd.DataFrame, str, list[dict[str, Any]], str, list[dict[str, Any]], str]:
    """Write the pairs without the models' names, in every form that people can fill in."""
    from realignment.review import comparisons

    tasks = comparisons.list_comparisons(win_rate_key)
    logger.info("%d pairs of answers to compare; %d are equal", len(tasks), len(win_rate_key) - len(tasks))
    return (
        comparisons.as_spreadsheet(tasks),
        comparisons.as_json_lines(tasks),
        comparisons.as_label_studio(tasks),
        comparisons.label_studio_config(policy),
        comparisons.as_argilla(tasks),
        comparisons.guidelines(policy, tasks),
    )


def import_votes(
    returned_votes: pd.DataFrame,
    win_rate_key: pd.DataFrame,
    policy: Policy,
    parameters: EvaluationParameters,
    review: ReviewParameters,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Check the votes that people handed back, and report win rates and agreement."""
    from realignment.evaluation.win_rates import comparing, figures
    from realignment.review import comparisons

    votes = comparisons.check_votes(returned_votes, win_rate_key, policy, same_as=review.same_as)
    report = figures.report_win_rates(
        comparing.tally_votes(votes, win_rate_key),
        judge="people",
        positions=comparing.list_voted_positions(votes, win_rate_key),
        resamples=parameters.win_rate.resamples,
        seed=seed,
    )
    unfilled = len(returned_votes) - len(votes)
    return votes, report | {"people": comparisons.report_votes(votes, unfilled=unfilled, seed=seed)}
