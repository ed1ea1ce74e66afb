"""Where an audit's truth comes from: labels of the data, or people's verdicts."""

import logging
from collections.abc import Collection
from typing import Literal

import pandas as pd

from realignment.judging import exchanges_of
from realignment.oracles.human import HumanOracle
from realignment.policy import Policy
from realignment.records import TRUTH_COLUMNS, DataError

logger = logging.getLogger(__name__)

Source = Literal["labels", "people"]
READ_BY = {"labels": "labels", "people": "human"}
"""Source of a truth → the oracle that answers from it."""

TRUTH = ("pair_id", "chosen_truth", "rejected_truth", "chosen_rules", "rejected_rules")


def of(source: Source, pairs: pd.DataFrame, verdicts: pd.DataFrame, policy: Policy) -> pd.DataFrame:
    """The truth as far as it is known: `TRUTH`, one row per pair.

    Args:
        source: Of the truth.
        pairs: To look up.
        verdicts: People's, as imported; read where they are the source.
        policy: That they must have been given under.

    Raises:
        DataError: People are the source and have judged none of the pairs.
    """
    if source == "labels":
        return from_labels(pairs)
    known = from_people(pairs, HumanOracle.from_table(verdicts), policy)
    if not is_known(known).any():
        raise DataError(
            f"People have judged {verdicts['task_id'].nunique()} responses, and no pair of these splits "
            "among them "
            "so that its disposition is known. Export the sample of these splits (`--pipelines "
            "review_export`)."
        )
    return known


def is_independent(source: Source, judged_by: str, members: Collection[str]) -> bool:
    """Whether the oracle gets no verdict from the truth that it is measured against; else it is warned of.

    Args:
        source: Of the truth.
        judged_by: Name of the oracle.
        members: Kinds of the oracles that judged: those of a vote or a cascade, or the oracle's own.

    Raises:
        DataError: The oracle has nothing but this truth: it would be right by definition.
    """
    same = READ_BY[source]
    if judged_by == same or set(members) == {same}:
        other = "people" if source == "labels" else "labels"
        raise DataError(
            f"The oracle {judged_by!r} answers with the very verdicts that `audit.truth: {source}` takes for "
            "the truth: it would be found right by definition, and the audit would say nothing. Audit it by "
            f"`audit.truth={other}`, or audit an oracle that judges by itself."
        )
    if same in members:
        logger.warning(
            "One of the oracles in %r is %r, whose verdicts `audit.truth: %s` takes for the truth. Where it "
            "decided, the oracle is right by definition: take every figure of this audit for the best that "
            "can be. It gives no error rates (`loss.error_rate: audited`).",
            judged_by,
            same,
            source,
        )
        return False
    return True


def from_people(pairs: pd.DataFrame, people: HumanOracle, policy: Policy) -> pd.DataFrame:
    """`TRUTH` from the majority of the annotators; what is tied or was not judged is unknown."""
    table = pairs[["pair_id"]].copy()
    for response in ("chosen", "rejected"):
        judgments = people(exchanges_of(pairs, response), policy)
        table[f"{response}_truth"] = pd.array([j.complies for j in judgments], dtype="boolean")
        table[f"{response}_rules"] = [
            None if j.complies is None else ",".join(j.rules_broken) for j in judgments
        ]
    return table[list(TRUTH)]


def from_labels(pairs: pd.DataFrame) -> pd.DataFrame:
    """`TRUTH` from chosen_complies and rejected_complies, and the rules that graded labels name."""
    table = pairs[["pair_id"]].copy()
    for response, label in zip(("chosen", "rejected"), TRUTH_COLUMNS, strict=True):
        table[f"{response}_truth"] = pairs[label].astype("boolean") if label in pairs else pd.NA
    for response in ("chosen", "rejected"):
        table[f"{response}_rules"] = pairs.get(f"{response}_rules")
    return table.astype({"chosen_truth": "boolean", "rejected_truth": "boolean"})


def is_known(truth: pd.DataFrame) -> pd.Series:
    """Which pairs have a true disposition: chosen complies, or both responses have a truth."""
    chosen, rejected = (truth[column].astype("boolean") for column in TRUTH[1:3])
    return (chosen.notna() & (chosen.fillna(False) | rejected.notna())).astype(bool)
