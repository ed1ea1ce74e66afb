"""The oracle that the parameters ask for: built in one place, for every stage that asks one."""

import pandas as pd

from realignment.judging import truth_labels
from realignment.oracles import Oracle
from realignment.oracles.labels import LabelOracle
from realignment.oracles.rules import RulesOracle
from realignment.parameters import OracleParameters
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
    raise NotImplementedError(parameters.oracle)


def _appoint_labels(pairs: pd.DataFrame) -> LabelOracle:
    labels = truth_labels(pairs)
    if not any(label is not None for label in labels.values()):
        raise DataError(
            "`judging.oracle: labels` needs the columns chosen_complies and rejected_complies (true, false "
            f"or null), and the pairs give no label. Found columns: {', '.join(pairs.columns)}. Label some, "
            "or set `judging.oracle: rules`."
        )
    return LabelOracle(labels)
