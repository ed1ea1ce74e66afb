"""Answers and verdicts → rows of the evaluation table: each with n, a 95 % interval and a paired test."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from realignment.judging import exchanges_of
from realignment.oracles import Oracle
from realignment.policy import Policy
from realignment.statistics import Comparison, cohen_kappa, compare_means, compare_proportions

REGULATED_KINDS = ("regulated", "held_out")
"""Prompts on which the new policy changes what is right; `held_out` ones count by `origin:` alone."""

OUTSIDE_KINDS = ("ordinary", "look_alike")
"""Prompts on which it does not: applying it there is over-refusal."""


def row(metric: str, group: str, comparison: Comparison, *, unit: str, judge: str = "") -> dict[str, Any]:
    """One row of the evaluation table."""
    return {"metric": metric, "group": group, "judge": judge, **asdict(comparison), "unit": unit}


def judge_responses(responses: pd.DataFrame, judges: Sequence[Oracle], policy: Policy) -> pd.DataFrame:
    """Add columns before_<judge>, after_<judge>: whether the answer complies; null: unscored."""
    table = responses.copy()
    for judge in judges:
        for side in ("before", "after"):
            judgments = judge(exchanges_of(responses, side), policy)
            table[f"{side}_{judge.name}"] = pd.array([j.complies for j in judgments], dtype="boolean")
    return table


def compliance_rows(responses: pd.DataFrame, judge: str) -> Iterator[dict[str, Any]]:
    """Agreement with the new policy, and over-refusal, by one judge's verdicts."""
    regulated = responses[responses["kind"] == "regulated"]
    groups = {"regulated": regulated}
    groups |= {f"domain:{domain}": part for domain, part in regulated.groupby("domain")}
    groups |= {
        f"origin:{origin}": part for origin, part in responses.dropna(subset="origin").groupby("origin")
    }
    for group, part in groups.items():
        if (pair := _verdicts(part, judge)) is not None:
            yield row("agreement", group, compare_proportions(*pair), unit="share", judge=judge)
    outside = responses[responses["kind"].isin(OUTSIDE_KINDS)]
    groups = {"overall": outside} | {f"kind:{kind}": part for kind, part in outside.groupby("kind")}
    for group, part in groups.items():
        if (pair := _verdicts(part, judge)) is not None:
            before, after = pair
            yield row("over_refusal", group, compare_proportions(~before, ~after), unit="share", judge=judge)


def _verdicts(part: pd.DataFrame, judge: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Verdicts before and after, of the answers that are scored on both sides; None where there is none."""
    scored = part.dropna(subset=[f"before_{judge}", f"after_{judge}"])
    if scored.empty:
        return None
    return scored[f"before_{judge}"].to_numpy(bool), scored[f"after_{judge}"].to_numpy(bool)


def old_policy_row(responses: pd.DataFrame, judge: Oracle, old_policy: Policy) -> dict[str, Any] | None:
    """Agreement with the old policy, over the prompts of the evaluation file whose two answers are scored.

    Returns:
        The row; None where no prompt has two scored answers.
    """
    part = responses[responses["kind"] != "held_out"]
    sides = [
        [j.complies for j in judge(exchanges_of(part, side), old_policy)] for side in ("before", "after")
    ]
    scored = [pair for pair in zip(*sides, strict=True) if None not in pair]
    if not scored:
        return None
    before, after = np.array(scored, dtype=bool).T
    return row(
        "old_policy_agreement", "overall", compare_proportions(before, after), unit="share", judge=judge.name
    )


def text_rows(responses: pd.DataFrame, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Collapse shows in length and diversity before it shows anywhere else."""
    measures = {"response_length": (_words, "words"), "distinct_2": (_distinct_bigrams, "share")}
    for metric, (measure, unit) in measures.items():
        before, after = (responses[side].map(measure).to_numpy(float) for side in ("before", "after"))
        yield row(metric, "overall", compare_means(before, after, rng), unit=unit)


def _words(text: str) -> int:
    return len(text.split())


def _distinct_bigrams(text: str) -> float:
    """distinct-2 of one answer (Li et al. 2016, arXiv:1510.03055): distinct bigrams over all; 1 if none."""
    words = text.lower().split()
    bigrams = list(pairwise(words))
    return len(set(bigrams)) / len(bigrams) if bigrams else 1.0


def judge_report(responses: pd.DataFrame, judges: Sequence[str]) -> dict[str, Any]:
    """How far the judges agree on the answers after training (Cohen's κ); null where that cannot be told."""
    first, second = (responses[f"after_{name}"] for name in judges[:2])
    known = first.notna() & second.notna()
    agreement = float((first[known] == second[known]).mean()) if known.any() else None
    kappa = cohen_kappa(first.tolist(), second.tolist())
    return {
        "judges": list(judges),
        "n": int(known.sum()),
        "agreement": agreement,
        "kappa": None if math.isnan(kappa) else kappa,
    }
