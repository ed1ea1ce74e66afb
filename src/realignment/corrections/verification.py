"""Corrections that people have judged too: is the verifier right, what does it let through (method.md, 6)?"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from realignment.corrections.candidates import CandidateError
from realignment.corrections.leakage import LEAKAGE_COLUMNS, compare_manner
from realignment.oracles.human import HumanOracle
from realignment.policy import Policy
from realignment.records import Exchange
from realignment.statistics import wilson_interval


def draw_for_people(verified: pd.DataFrame, *, size: int, seed: int) -> pd.DataFrame:
    """Corrections for people to judge: equally many of every writer and verdict, as far as there are.

    What the verifier refused is among them: else its strictness would not be seen.

    Args:
        verified: From `corrections.choose`.
        size: Corrections, at most; a text that repeats is one.
        seed: Of the draw.

    Raises:
        CandidateError: The table is of an earlier version, which named no texts.
    """
    if "task_id" not in verified:
        raise CandidateError(
            "The corrections were verified by an earlier version of this package, and no verdict of people "
            "could find them. Run `--pipelines corrections` again."
        )
    judged = _by_a_verifier(verified).drop_duplicates("task_id")
    shuffled = judged.sample(frac=1, random_state=seed)
    turn = shuffled.groupby(["writer", "complies"]).cumcount()
    return shuffled.iloc[np.argsort(turn.to_numpy(), kind="stable")[:size]]


def measure_verifier(
    verified: pd.DataFrame, verdicts: pd.DataFrame, policy: Policy, *, seed: int
) -> pd.DataFrame:
    """How far the verifier agrees with people, by writer and rule, and what it alone lets through.

    Every share is over what the verifier said (approved, refused, named a rule), because by that the sample
    was drawn. Length and style are those of corrections that the verifier alone has approved against
    the human-verified ones of the same writer, which people have approved too.

    Args:
        verified: From `corrections.choose`.
        verdicts: People's, as imported; those under another text of the policy than `policy` count for
            nothing.
        policy: That the verifier judged by.
        seed: Of the bootstrap and the folds.

    Returns:
        `LEAKAGE_COLUMNS`, difference = verifier − people; no rows where people have judged no correction.
    """
    rows: list[dict[str, Any]] = []
    if {"task_id", "verified_under"} <= set(verified.columns) and "policy_digest" in verdicts:
        known = verdicts[verdicts["policy_digest"] == policy.fingerprint]
        judged = _by_a_verifier(verified[verified["verified_under"] == policy.fingerprint])
        for writer, part in _with_people(judged, known, policy).groupby("writer", sort=False):
            rows += _compare_verdicts(str(writer), part[part["people"].notna()])
            approved = part[part["complies"].astype(bool)]
            by_people = approved["people"].fillna(False).astype(bool)
            rows += compare_manner(
                str(writer), approved[by_people], approved[~by_people], seed=seed, against=", human-verified"
            )
    return pd.DataFrame(rows, columns=list(LEAKAGE_COLUMNS))


def _by_a_verifier(verified: pd.DataFrame) -> pd.DataFrame:
    """What has a verdict, and not from people: with their own they agree."""
    return verified[verified["complies"].notna() & (verified["verifier"] != HumanOracle.name)]


def _with_people(judged: pd.DataFrame, known: pd.DataFrame, policy: Policy) -> pd.DataFrame:
    """Columns people (their majority; null: none) and people_rules (a list) for every correction."""
    texts = known[known["task_id"].isin(judged["task_id"])].drop_duplicates("task_id")
    if texts.empty:
        return judged.iloc[:0].assign(people=None, people_rules=None)
    asked = [Exchange(*pair) for pair in zip(texts["prompt"], texts["response"], strict=True)]
    said = dict(zip(texts["task_id"], HumanOracle.from_table(known)(asked, policy), strict=True))
    judgments = [said.get(task) for task in judged["task_id"]]
    return judged.assign(
        people=pd.array([j.complies if j else None for j in judgments], dtype="boolean"),
        people_rules=pd.Series(
            [list(j.rules_broken) if j else [] for j in judgments], index=judged.index, dtype=object
        ),
    )


def _compare_verdicts(writer: str, judged: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """People's share of yes where the verifier said yes of all, or no of all."""
    approved, refused = (judged[judged["complies"].astype(bool) == said] for said in (True, False))
    yield from _share(writer, "approved", approved["people"], said=1.0)
    yield from _share(writer, "refused", refused["people"], said=0.0)
    named = refused["rules_broken"].str.split(",")
    for rule in sorted({rule for ids in (*named, *judged["people_rules"]) for rule in ids if rule}):
        found = refused[named.map(lambda ids, r=rule: r in ids).astype(bool)]
        for metric, part, said in ((f"{rule} found", found, 1.0), (f"{rule} missed", approved, 0.0)):
            by_people = part["people_rules"].map(lambda ids, r=rule: r in ids)
            if said or by_people.any():
                yield from _share(writer, metric, by_people, said=said)


def _share(writer: str, metric: str, people: pd.Series, *, said: float) -> Iterator[dict[str, Any]]:
    n, yes = len(people), int(people.astype(bool).sum())
    if not n:
        return
    low, high = wilson_interval(yes, n)
    yield {
        "writer": writer, "group": "verifier", "metric": metric, "paired": True, "n_people": n, "n_writer": n,
        "people": yes / n, "value": said, "difference": said - yes / n, "low": said - high,
        "high": said - low, "unit": "share",
    }  # fmt: skip
