"""The evaluation table: every measured quantity in one tidy table."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from realignment.evaluation import held_out, measures, text_measures
from realignment.oracles.rules import RulesOracle
from realignment.policy import Policy
from realignment.records import judge_names
from realignment.statistics import compare_proportions

COLUMNS = (
    "metric", "group", "judge", "n", "before", "before_low", "before_high", "after", "after_low",
    "after_high", "difference", "difference_low", "difference_high", "p_value", "test", "unit",
)  # fmt: skip


def tabulate(
    responses: pd.DataFrame,
    held_out_scores: pd.DataFrame,
    capability_scores: pd.DataFrame,
    policy: Policy,
    old_policy: Policy,
    *,
    quality: Mapping[str, Mapping[str, Mapping[str, int]]] | None = None,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Tabulate an evaluation: one row per metric, group and judge (see `evaluation.measures.metric_row`).

    Args:
        responses: Judged answers; empty where the policy has no rules.
        held_out_scores: From `evaluation.held_out.score_held_out`.
        capability_scores: task, question, before, after.
        policy: The new policy.
        old_policy: Agreement with it is reported where it has rules.
        quality: Each judge's errors by domain, from `judges.choose_judges`; None: shares are not corrected.
        rng: Source of the bootstrap intervals.

    Returns:
        Columns `COLUMNS`.
    """
    rows = [
        *_judged(responses, old_policy, quality or {}, rng),
        *held_out.tabulate_held_out(held_out_scores, rng),
        *_capability(capability_scores),
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _judged(
    responses: pd.DataFrame,
    old_policy: Policy,
    quality: Mapping[str, Mapping[str, Mapping[str, int]]],
    rng: np.random.Generator,
) -> Iterator[dict[str, Any]]:
    if responses.empty:
        return
    for judge in judge_names(map(str, responses.columns)):
        yield from measures.compliance_rows(responses, judge, rng)
        yield from measures.corrected_rows(responses, judge, quality.get(judge, {}))
    if old_policy.checked_rules and (responses["kind"] != "held_out").any():
        row = measures.old_policy_row(responses, RulesOracle(), old_policy, rng)
        if row is not None:
            yield row
    yield from text_measures.text_rows(responses, rng)


def _capability(scores: pd.DataFrame) -> Iterator[dict[str, Any]]:
    if scores.empty:
        return
    groups = {"overall": scores} | {f"task:{task}": part for task, part in scores.groupby("task")}
    if len(groups) == 2:  # the only task is the same as overall
        del groups[next(reversed(groups))]
    for group, part in groups.items():
        comparison = compare_proportions(part["before"].to_numpy(bool), part["after"].to_numpy(bool))
        yield measures.metric_row("capability", group, comparison, unit="share")
