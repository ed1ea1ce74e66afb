"""Who judges the answers: never only the oracle that labelled the data."""

from typing import Any

import pandas as pd

from realignment.evaluation.statistics import wilson_interval
from realignment.judging import JUDGED_RESPONSES, exchanges_of
from realignment.oracles import Oracle
from realignment.oracles.classifier import ClassifierError, train_classifier
from realignment.oracles.rules import RulesOracle
from realignment.policy import Policy
from realignment.records import Exchange


def labelled_exchanges(pairs: pd.DataFrame) -> tuple[list[Exchange], list[bool]]:
    """Every response with a hand-set label; a correction was written to comply, so it counts as complying."""
    exchanges: list[Exchange] = []
    labels: list[bool] = []
    for response in JUDGED_RESPONSES:
        column = f"{response}_complies"
        if response == "correction" and "chosen_complies" in pairs:
            rows = pairs[pairs[response].notna()]
            truth = [True] * len(rows)
        elif column in pairs:
            rows = pairs[pairs[column].notna()]
            truth = rows[column].astype(bool).tolist()
        else:
            continue
        exchanges += exchanges_of(rows, response)
        labels += truth
    return exchanges, labels


def appoint(
    pairs: pd.DataFrame, policy: Policy, *, folds: int, seed: int
) -> tuple[list[Oracle], dict[str, Any]]:
    """The judges, and what is known of them.

    The rules judge where the policy has any; a classifier joins them where the pairs carry hand-set labels.

    Returns:
        Judges, and the report: n, folds, accuracy and interval of the classifier, or why there is none.
    """
    if not policy.rules:
        return [], {
            "judges": [],
            "note": "The policy has no machine-checkable rules: held-out pairs are scored instead.",
        }
    rules: list[Oracle] = [RulesOracle()]
    exchanges, labels = labelled_exchanges(pairs)
    try:
        classifier, validation = train_classifier(exchanges, labels, folds=folds, seed=seed)
    except ClassifierError as error:
        return rules, {"judges": ["rules"], "note": f"No second judge: {error}"}
    right = int(validation.correct.sum())
    report = {
        "judges": ["rules", "classifier"],
        "classifier": {
            "n": validation.n,
            "folds": validation.folds,
            "cross_validated_accuracy": validation.accuracy,
            "interval": list(wilson_interval(right, validation.n)),
        },
    }
    return [*rules, classifier], report
