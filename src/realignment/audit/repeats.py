"""The oracle that the parameters ask for: built in one place, for every stage that asks one."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from realignment.judging import judge_pairs
from realignment.oracles.factory import appoint, without_store
from realignment.parameters import (
    OracleParameters,
)
from realignment.policy import Policy
from realignment.records import DataError


def ask_oracles(
    sample: pd.DataFrame,
    policy: Policy,
    *,
    judged_by: str,
    again: Sequence[OracleParameters],
    others: Sequence[OracleParameters],
) -> pd.DataFrame:
    """Judgments of a sample by the same oracle again, and by others; none is taken from a store.

    Args:
        sample: Pairs.
        policy: To judge by.
        judged_by: Name of the oracle whose judgments are audited.
        again: Its parameters, as often as it is asked again.
        others: Those of other oracles.

    Raises:
        DataError: The parameters are those of another oracle than the one that judged.

    Returns:
        Columns of `judging.judge_pairs`, and `round`: 1 and up for the same oracle, 0 for others. Others of
        one name have numbers: every trained classifier is `classifier`, the second here `classifier (2)`.
    """
    pairs = sample.assign(correction=None)
    parts, names = [], Counter([judged_by])
    for number, parameters in [*enumerate(again, start=1), *((0, parameters) for parameters in others)]:
        oracle = without_store(appoint(parameters, pairs))
        if number and oracle.name != judged_by:
            raise DataError(
                f"The judgments are by the oracle {judged_by!r}, and the parameters of this run name "
                f"{oracle.name!r}, whose verdicts would not tell whether the first repeats itself. Give the "
                "audit the `judging` parameters that judged, or set `audit.repeats=0`."
            )
        judged = judge_pairs(pairs, policy, oracle).assign(round=number)
        names[oracle.name] += not number
        if not number and (place := names[oracle.name]) > 1:
            judged["oracle"] = f"{oracle.name} ({place})"
        parts.append(judged)
    if not parts:
        return pd.DataFrame(columns=["pair_id", "response", "complies", "confidence", "oracle", "round"])
    return pd.concat(parts, ignore_index=True)
