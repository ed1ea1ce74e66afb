"""Corrections that people have judged too: how far the verifier agrees with them (method.md, 6)."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from realignment.corrections.candidates import CandidateError
from realignment.corrections.leakage import LEAKAGE_COLUMNS, compare_style
from realignment.oracles.human import HumanOracle
from realignment.policy import Policy
from realignment.records import Exchange
from realignment.statistics import wilson_interval


def sample_for_review(verified: pd.DataFrame, *, size: int, seed: int) -> pd.DataFrame:
    """Sample corrections for people to judge, equally many of every writer and verdict as far as possible.

    Refused ones are among them, for they show whether the verifier is too strict.

    Args:
        verified: From `corrections.choose_corrections`.
        size: Corrections, at most; a text that repeats is one.
        seed: Seeds the sample.

    Returns:
        Rows of `verified`.

    Raises:
        CandidateError: The table is of an earlier version, whose texts have no ids.
    """
    if "task_id" not in verified:
        raise CandidateError(
            "The corrections were verified by an earlier version of this package, and no verdict of people "
            "could find them. Run `--pipelines corrections` again."
        )
    judged = _select_verified(verified).drop_duplicates("task_id")
    shuffled = judged.sample(frac=1, random_state=seed)
    # Round robin: the first of every group, then the second of every group, and so on.
    rank = shuffled.groupby(["writer", "complies"]).cumcount()
    return shuffled.iloc[np.argsort(rank.to_numpy(), kind="stable")[:size]]


def measure_verifier(
    verified: pd.DataFrame, verdicts: pd.DataFrame, policy: Policy, *, seed: int
) -> pd.DataFrame:
    """Measure how far the verifier agrees with people, by writer and rule, and what it wrongly approves.

    Every share is over one kind of verdict of the verifier (approved, refused, named a rule), because the
    sample was drawn by verdict. Length and style compare corrections that only the verifier has approved
    with the human-verified ones of the same writer, which people have approved too.

    Args:
        verified: From `corrections.choose_corrections`.
        verdicts: People's verdicts, as imported; those under another text of the policy are left out.
        policy: The policy that the verifier judged by.
        seed: Seeds the bootstrap and the folds.

    Returns:
        `LEAKAGE_COLUMNS`, difference = verifier − people; no rows where people have judged no correction.
    """
    rows: list[dict[str, Any]] = []
    if {"task_id", "verified_under"} <= set(verified.columns) and "policy_digest" in verdicts:
        valid_verdicts = verdicts[verdicts["policy_digest"] == policy.fingerprint]
        judged = _select_verified(verified[verified["verified_under"] == policy.fingerprint])
        judged = _add_people_verdicts(judged, valid_verdicts, policy)
        for writer, part in judged.groupby("writer", sort=False):
            rows += _compare_verdicts(str(writer), part[part["people"].notna()])
            approved = part[part["complies"].astype(bool)]
            by_people = approved["people"].fillna(False).astype(bool)
            rows += compare_style(
                str(writer), approved[by_people], approved[~by_people], seed=seed, against=", human-verified"
            )
    return pd.DataFrame(rows, columns=list(LEAKAGE_COLUMNS))


def _select_verified(verified: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with a verdict, except where it is people's own: with these they agree anyway."""
    return verified[verified["complies"].notna() & (verified["verifier"] != HumanOracle.name)]


def _add_people_verdicts(judged: pd.DataFrame, verdicts: pd.DataFrame, policy: Policy) -> pd.DataFrame:
    """Add columns people (the majority of their verdicts; null: none) and people_rules (a list)."""
    texts = verdicts[verdicts["task_id"].isin(judged["task_id"])].drop_duplicates("task_id")
    if texts.empty:
        return judged.iloc[:0].assign(people=None, people_rules=None)
    exchanges = [Exchange(*pair) for pair in zip(texts["prompt"], texts["response"], strict=True)]
    judgments = HumanOracle.from_table(verdicts)(exchanges, policy)
    judgment_by_task = dict(zip(texts["task_id"], judgments, strict=True))
    complies: list[bool | None] = []
    rules: list[list[str]] = []
    for task in judged["task_id"]:
        judgment = judgment_by_task.get(task)
        complies.append(judgment.complies if judgment else None)
        rules.append(list(judgment.rules_broken) if judgment else [])
    return judged.assign(
        people=pd.array(complies, dtype="boolean"),
        people_rules=pd.Series(rules, index=judged.index, dtype=object),
    )


def _compare_verdicts(writer: str, judged: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield people's shares of approval, and of each rule, within what the verifier approved or refused."""
    is_approved = judged["complies"].astype(bool)
    approved = judged[is_approved]
    refused = judged[~is_approved]
    yield from _share(writer, "approved", approved["people"], verifier_share=1.0)
    yield from _share(writer, "refused", refused["people"], verifier_share=0.0)
    verifier_rules = refused["rules_broken"].str.split(",")
    for rule in _list_rules(verifier_rules, judged["people_rules"]):
        named = refused[_names_rule(verifier_rules, rule).astype(bool)]
        yield from _share(
            writer, f"{rule} found", _names_rule(named["people_rules"], rule), verifier_share=1.0
        )
        missed = _names_rule(approved["people_rules"], rule)
        if missed.any():
            yield from _share(writer, f"{rule} missed", missed, verifier_share=0.0)


def _list_rules(*columns: pd.Series) -> list[str]:
    """Return the ids, sorted, of all rules in some columns of lists."""
    rules: set[str] = set()
    for column in columns:
        for ids in column:
            rules.update(ids)
    return sorted(rules - {""})


def _names_rule(rules: pd.Series, rule: str) -> pd.Series:
    """Return for each list of rule ids whether a rule is among them."""
    return rules.map(lambda ids: rule in ids)


def _share(writer: str, metric: str, people: pd.Series, *, verifier_share: float) -> Iterator[dict[str, Any]]:
    """Yield the row of a metric; none where people judged nothing.

    Args:
        writer: The writer of the corrections.
        metric: The name of the metric.
        people: What people said of each correction: yes or no.
        verifier_share: What the verifier said of all of them: 1 for yes, 0 for no.
    """
    n = len(people)
    if not n:
        return
    approvals = int(people.astype(bool).sum())
    share = approvals / n
    low, high = wilson_interval(approvals, n)
    yield {
        "writer": writer, "group": "verifier", "metric": metric, "paired": True, "n_people": n, "n_writer": n,
        "people": share, "value": verifier_share, "difference": verifier_share - share,
        "low": verifier_share - high, "high": verifier_share - low, "unit": "share",
    }  # fmt: skip
