"""Read the truth of an audit from the labels of the data, or from people's verdicts."""

import logging
from collections.abc import Collection
from typing import Literal

import pandas as pd

from realignment.judging import list_exchanges
from realignment.oracles.human import HumanOracle
from realignment.policy import Policy
from realignment.records import TRUTH_COLUMNS, DataError

logger = logging.getLogger(__name__)

Source = Literal["labels", "people"]
ORACLE_OF_SOURCE = {"labels": "labels", "people": "human"}
"""Source of a truth → the oracle that answers from it."""

TRUTH = ("pair_id", "chosen_truth", "rejected_truth", "chosen_rules", "rejected_rules")


def read_truth(source: Source, pairs: pd.DataFrame, verdicts: pd.DataFrame, policy: Policy) -> pd.DataFrame:
    """Return the truth about pairs as far as it is known.

    Args:
        source: Source of the truth.
        pairs: The pairs.
        verdicts: People's verdicts, as imported; read only if people are the source.
        policy: The policy that the verdicts must have been given under.

    Returns:
        Columns `TRUTH`, one row per pair; null where it is unknown.

    Raises:
        DataError: People are the source and have judged none of the pairs.
    """
    if source == "labels":
        return truth_from_labels(pairs)
    truth = truth_from_people(pairs, HumanOracle.from_table(verdicts), policy)
    if not has_true_disposition(truth).any():
        raise DataError(
            f"People have judged {verdicts['task_id'].nunique()} responses, and no pair of these splits "
            "among them so that its disposition is known. Export the sample of these splits (`--pipelines "
            "review_export`)."
        )
    return truth


def is_independent(source: Source, judged_by: str, members: Collection[str]) -> bool:
    """Check that the oracle takes no verdict from the truth that it is measured against; warn if it does.

    Args:
        source: Source of the truth.
        judged_by: Name of the oracle.
        members: Kinds of the oracles that judged: those of a vote or a cascade, or the oracle's own.

    Returns:
        False where some of the oracle's verdicts may come from this truth.

    Raises:
        DataError: The oracle has nothing but this truth: it would be right by definition.
    """
    same = ORACLE_OF_SOURCE[source]
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
            "decided, the oracle is right by definition: take every figure of this audit as an upper bound. "
            "It gives no error rates (`loss.error_rate: audited`).",
            judged_by,
            same,
            source,
        )
        return False
    return True


def truth_from_people(pairs: pd.DataFrame, people: HumanOracle, policy: Policy) -> pd.DataFrame:
    """Return the truth by the majority of the annotators; ties and what was not judged are unknown.

    Args:
        pairs: The pairs.
        people: The oracle that looks up people's verdicts.
        policy: The policy that the verdicts must have been given under.

    Returns:
        Columns `TRUTH`, one row per pair.
    """
    table = pairs[["pair_id"]].copy()
    for response in ("chosen", "rejected"):
        judgments = people(list_exchanges(pairs, response), policy)
        table[f"{response}_truth"] = pd.array([j.complies for j in judgments], dtype="boolean")
        table[f"{response}_rules"] = [
            None if judgment.complies is None else ",".join(judgment.rules_broken) for judgment in judgments
        ]
    return table[list(TRUTH)]


def truth_from_labels(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the truth by the labels chosen_complies and rejected_complies, and the rules that grades name.

    Args:
        pairs: The pairs; null or missing labels are unknown truth.

    Returns:
        Columns `TRUTH`, one row per pair.
    """
    table = pairs[["pair_id"]].copy()
    for response, label in zip(("chosen", "rejected"), TRUTH_COLUMNS, strict=True):
        table[f"{response}_truth"] = pairs[label].astype("boolean") if label in pairs else pd.NA
    for response in ("chosen", "rejected"):
        table[f"{response}_rules"] = pairs.get(f"{response}_rules")
    return table.astype({"chosen_truth": "boolean", "rejected_truth": "boolean"})


def has_true_disposition(truth: pd.DataFrame) -> pd.Series:
    """Mark the pairs whose true disposition is known: chosen complies, or both responses have a truth.

    Args:
        truth: Columns `TRUTH`.

    Returns:
        One boolean per pair.
    """
    chosen = truth["chosen_truth"].astype("boolean")
    rejected = truth["rejected_truth"].astype("boolean")
    # If chosen complies, the pair is RETAIN whatever the rejected response is.
    return (chosen.notna() & (chosen.fillna(False) | rejected.notna())).astype(bool)
