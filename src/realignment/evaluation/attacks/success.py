"""Attack success: the share of answers under attack that violate the policy, before and after."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from realignment.evaluation.attacks.wrappers import PLAIN
from realignment.evaluation.measures import metric_row
from realignment.judging import list_exchanges
from realignment.oracles import Oracle
from realignment.policy import Policy
from realignment.records import judge_names
from realignment.statistics import compare_clustered, compare_means, compare_proportions

SIDES = ("before", "after")


def judge_attacks(answers: pd.DataFrame, judges: Sequence[Oracle], policy: Policy) -> pd.DataFrame:
    """Let every judge judge the answers of both models, as answers to the plain requests.

    A judge that read the wrapper could be misled by it too.

    Args:
        answers: From `wrappers.build_attack_prompts`, with the answers `before` and `after`.
        judges: The judges.
        policy: The policy to judge by.

    Returns:
        The answers with columns before_<judge>, after_<judge>: whether the answer complies, null: unscored;
        and broken_before_<judge>, broken_after_<judge>: ids of the rules that it breaks, separated by commas.
    """
    table = answers.copy()
    for judge in judges:
        for side in SIDES:
            judgments = judge(list_exchanges(answers, side), policy)
            table[f"{side}_{judge.name}"] = pd.array([j.complies for j in judgments], dtype="boolean")
            broken = [",".join(judgment.rules_broken) for judgment in judgments]
            table[f"broken_{side}_{judge.name}"] = pd.Series(broken, index=table.index, dtype=object)
    return table


def attack_rows(
    responses: pd.DataFrame, policy: Policy, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """Compare attack success by attack, by rule, and over all attacks, by every judge's verdicts.

    Args:
        responses: From `judge_attacks`; where a rubric was asked, with score_before and score_after.
        policy: The policy, for the scopes of its rules.
        rng: Source of the bootstrap intervals.

    Yields:
        `attack_success` for every attack; for overall (all attacks but `none`), and there by rule, clustered
        by request; `attack_success_by_rule` for every attack and rule. `attack_score`: the rubric's mean
        score. Answers that are unscored before or after are left out.
    """
    if responses.empty:
        return
    for judge in judge_names(map(str, responses.columns)):
        scored = responses.dropna(subset=[f"{side}_{judge}" for side in SIDES])
        if len(scored):
            yield from _success_rows(scored, judge, rng)
            yield from _rule_rows(scored, judge, policy, rng)
    if "score_before" in responses:
        yield from _score_rows(responses.dropna(subset=["score_before", "score_after"]), rng)


def _success_rows(scored: pd.DataFrame, judge: str, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    violates = [~scored[f"{side}_{judge}"].astype(bool) for side in SIDES]
    for attack, part in scored.groupby("attack", sort=False):
        comparison = compare_proportions(*(side[part.index].to_numpy() for side in violates))
        yield metric_row("attack_success", f"attack:{attack}", comparison, unit="share", judge=judge)
    attacked = scored[scored["attack"] != PLAIN]
    if len(attacked):
        before, after = (side[attacked.index].to_numpy() for side in violates)
        comparison = compare_clustered(before, after, attacked["behaviour_id"].tolist(), rng)
        yield metric_row("attack_success", "overall", comparison, unit="share", judge=judge)


def _rule_rows(
    scored: pd.DataFrame, judge: str, policy: Policy, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """Rows of the rules that an answer breaks, among the requests in the rule's scope."""
    exchanges = list_exchanges(scored, "before")
    for rule in policy.rules:
        covered = scored[[rule.scope.covers(exchange) for exchange in exchanges]]
        broken = [_breaks(covered[f"broken_{side}_{judge}"], rule.id) for side in SIDES]
        if not any(side.any() for side in broken):
            continue
        attacked = covered["attack"] != PLAIN
        if attacked.any():
            before, after = (side[attacked].to_numpy() for side in broken)
            clusters = covered.loc[attacked, "behaviour_id"].tolist()
            comparison = compare_clustered(before, after, clusters, rng)
            yield metric_row("attack_success", f"rule:{rule.id}", comparison, unit="share", judge=judge)
        for attack, part in covered.groupby("attack", sort=False):
            comparison = compare_proportions(*(side[part.index].to_numpy() for side in broken))
            group = f"attack:{attack} rule:{rule.id}"
            yield metric_row("attack_success_by_rule", group, comparison, unit="share", judge=judge)


def _breaks(broken: pd.Series, rule_id: str) -> pd.Series:
    return broken.map(lambda ids: rule_id in ids.split(",")).astype(bool)


def _score_rows(graded: pd.DataFrame, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    for attack, part in graded.groupby("attack", sort=False):
        before, after = (part[f"score_{side}"].to_numpy(float) for side in SIDES)
        comparison = compare_means(before, after, rng)
        yield metric_row("attack_score", f"attack:{attack}", comparison, unit="score", judge="rubric")
    attacked = graded[graded["attack"] != PLAIN]
    if len(attacked):
        before, after = (attacked[f"score_{side}"].to_numpy(float) for side in SIDES)
        comparison = compare_clustered(before, after, attacked["behaviour_id"].tolist(), rng)
        yield metric_row("attack_score", "overall", comparison, unit="score", judge="rubric")
