"""Where an audit's truth comes from: labels of the data, or people's verdicts."""

from typing import Literal

import pandas as pd

from realignment.judging import exchanges_of
from realignment.oracles.human import HumanOracle
from realignment.policy import Policy
from realignment.records import TRUTH_COLUMNS, DataError

TRUTH = ("pair_id", "chosen_truth", "rejected_truth", "chosen_rules", "rejected_rules")


def of(
    source: Literal["labels", "people"], pairs: pd.DataFrame, verdicts: pd.DataFrame, policy: Policy
) -> pd.DataFrame:
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
