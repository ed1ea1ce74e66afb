"""Judge an audit's sample again: by the same oracle, and by the oracles that it is compared with."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from realignment.judging import judge_pairs
from realignment.oracles.factory import build_oracle, without_store
from realignment.parameters import OracleParameters
from realignment.policy import Policy
from realignment.records import DataError


def judge_again(
    sample: pd.DataFrame,
    policy: Policy,
    *,
    judged_by: str,
    again: Sequence[OracleParameters],
    others: Sequence[OracleParameters],
) -> pd.DataFrame:
    """Judge a sample by the same oracle again, and by others; no verdict is taken from a store.

    Args:
        sample: The sampled pairs.
        policy: The policy to judge by.
        judged_by: Name of the oracle whose judgments are audited.
        again: That oracle's parameters, once per repetition.
        others: Parameters of the other oracles.

    Returns:
        Columns of `judging.judge_pairs`, and `round`: 1 and up for the same oracle, 0 for others. Others of
        one name have numbers: every trained classifier is `classifier`, the second here `classifier (2)`.

    Raises:
        DataError: The parameters are those of another oracle than the one that judged.
    """
    pairs = sample.assign(correction=None)  # an audit is of the chosen and the rejected response alone
    rounds = [*enumerate(again, start=1), *((0, parameters) for parameters in others)]
    parts = []
    name_counts = Counter([judged_by])
    for number, parameters in rounds:
        oracle = without_store(build_oracle(parameters, pairs))
        if number > 0 and oracle.name != judged_by:
            raise DataError(
                f"The judgments are by the oracle {judged_by!r}, and the parameters of this run name "
                f"{oracle.name!r}, whose verdicts would not tell whether the first repeats itself. Give the "
                "audit the `judging` parameters that judged, or set `audit.repeats=0`."
            )
        judgments = judge_pairs(pairs, policy, oracle).assign(round=number)
        if number == 0:
            name_counts[oracle.name] += 1
            if name_counts[oracle.name] > 1:
                judgments["oracle"] = f"{oracle.name} ({name_counts[oracle.name]})"
        parts.append(judgments)
    if not parts:
        return pd.DataFrame(columns=["pair_id", "response", "complies", "confidence", "oracle", "round"])
    return pd.concat(parts, ignore_index=True)
