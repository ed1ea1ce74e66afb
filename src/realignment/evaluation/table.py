"""The evaluation table: every measured quantity in one tidy table."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from realignment.evaluation import (
    capability,
    held_out,
    measures,
    text_measures,
)
from realignment.evaluation.attacks import success
from realignment.evaluation.win_rates import figures
from realignment.oracles.rules import RulesOracle
from realignment.policy import Policy
from realignment.records import judge_names

COLUMNS = (
    "metric", "group", "judge", "n", "before", "before_low", "before_high", "after", "after_low",
    "after_high", "difference", "difference_low", "difference_high", "p_value", "test", "unit",
)  # fmt: skip


def tabulate(
    responses: pd.DataFrame,
    held_out_scores: pd.DataFrame | None,
    capability_scores: pd.DataFrame,
    policy: Policy,
    old_policy: Policy,
    *,
    quality: Mapping[str, Mapping[str, Mapping[str, int]]] | None = None,
    win_rates: Mapping[str, Any] | None = None,
    rng: np.random.Generator,
    attack_responses: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Tabulate an evaluation: one row per metric, group and judge (see `evaluation.measures.metric_row`).

    Args:
        responses: Judged answers; empty where the policy has no rules.
        held_out_scores: From `evaluation.held_out.score_held_out`; None: no pairs are held out.
        capability_scores: From `evaluation.capability.compare_models`.
        policy: The new policy.
        old_policy: Agreement with it is reported where it has rules.
        quality: Each judge's errors by domain, from `judges.measure_judges`; None: shares are not corrected.
        win_rates: From `win_rates.figures.report_win_rates`; None: the answers were not compared.
        rng: Source of the bootstrap intervals.
        attack_responses: From `attacks.success.judge_attacks`; None: no attack was run.

    Returns:
        Columns `COLUMNS`.
    """
    rows = [
        *_judged(responses, old_policy, quality or {}, rng),
        *figures.win_rate_rows(win_rates or {}),
        *([] if held_out_scores is None else held_out.tabulate_held_out(held_out_scores, rng)),
        *capability.tabulate_capability(capability_scores, rng),
    ]
    if attack_responses is not None:  # last, so that the intervals of the others stay as they are
        rows += success.attack_rows(attack_responses, policy, rng)
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
