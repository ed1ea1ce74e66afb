"""The oracle that the parameters ask for: built in one place, for every stage that asks one."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from realignment.judging import judge_pairs, truth_labels
from realignment.oracles import Oracle
from realignment.oracles.human import HumanOracle, read_imported
from realignment.oracles.labels import LabelOracle
from realignment.oracles.rules import RulesOracle
from realignment.parameters import OracleParameters
from realignment.policy import Policy
from realignment.records import DataError


def appoint(parameters: OracleParameters, pairs: pd.DataFrame) -> Oracle:
    """The oracle of these parameters.

    Args:
        parameters: Its kind and settings; `JudgingParameters` are such.
        pairs: What it is to judge; `labels` reads its verdicts there.

    Raises:
        DataError: The oracle is `labels` and the pairs have none.
    """
    match parameters.oracle:
        case "rules":
            return RulesOracle()
        case "labels":
            return _appoint_labels(pairs)
        case "human":
            return _appoint_people(parameters)
    raise NotImplementedError(parameters.oracle)


def _appoint_people(parameters: OracleParameters) -> HumanOracle:
    assert parameters.human is not None  # the parameters have checked it
    return HumanOracle.from_table(read_imported(Path(parameters.human.verdicts)))


def _appoint_labels(pairs: pd.DataFrame) -> LabelOracle:
    labels = truth_labels(pairs)
    if not any(label is not None for label in labels.values()):
        raise DataError(
            "`judging.oracle: labels` needs the columns chosen_complies and rejected_complies (true, false "
            f"or null), and the pairs give no label. Found columns: {', '.join(pairs.columns)}. Label some, "
            "or set `judging.oracle: rules`."
        )
    return LabelOracle(labels)


def ask_oracles(
    sample: pd.DataFrame,
    policy: Policy,
    *,
    again: Sequence[OracleParameters],
    others: Sequence[OracleParameters],
) -> pd.DataFrame:
    """Judgments of a sample by the same oracle again, and by others.

    Returns:
        Columns of `judging.judge_pairs`, and `round`: 1 and up for the same oracle, 0 for others.
    """
    pairs = sample.assign(correction=None)
    asked = [*enumerate(again, start=1), *((0, parameters) for parameters in others)]
    parts = [
        judge_pairs(pairs, policy, appoint(parameters, pairs)).assign(round=number)
        for number, parameters in asked
    ]
    if not parts:
        return pd.DataFrame(columns=["pair_id", "response", "complies", "confidence", "oracle", "round"])
    return pd.concat(parts, ignore_index=True)
