"""Where an audit's truth comes from: labels of the data, or people's verdicts."""

import pandas as pd

from realignment.records import TRUTH_COLUMNS

TRUTH = ("pair_id", "chosen_truth", "rejected_truth", "chosen_rules", "rejected_rules")


def from_labels(pairs: pd.DataFrame) -> pd.DataFrame:
    """`TRUTH` from the columns chosen_complies and rejected_complies; they name no rules."""
    table = pairs[["pair_id"]].copy()
    for column, label in zip(TRUTH[1:3], TRUTH_COLUMNS, strict=True):
        table[column] = pairs[label].astype("boolean") if label in pairs else pd.array([pd.NA] * len(pairs), "boolean")
    return table.assign(chosen_rules=pd.Series(pd.NA, index=table.index, dtype="str"), rejected_rules=None)


def is_known(truth: pd.DataFrame) -> pd.Series:
    """Which pairs have a true disposition: chosen complies, or both responses have a truth."""
    chosen, rejected = (truth[column].astype("boolean") for column in TRUTH[1:3])
    return (chosen.notna() & (chosen.fillna(False) | rejected.notna())).astype(bool)
