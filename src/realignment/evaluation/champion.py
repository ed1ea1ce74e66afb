"""Compare a candidate with the champion that it would replace: the same prompts, the same judge, paired."""

import pandas as pd

from realignment.evaluation.measures import OUTSIDE_KINDS
from realignment.promotion.gate import ChampionComparison
from realignment.records import judge_names
from realignment.statistics import compare_proportions

_KINDS = {"agreement": ("regulated",), "over_refusal": OUTSIDE_KINDS}
"""Metric → the kinds of prompts that it is measured on."""


def compare_with_champion(responses: pd.DataFrame, champion: pd.DataFrame) -> list[ChampionComparison]:
    """Compare the answers of candidate and champion on the prompts that both have answered.

    Args:
        responses: Judged answers of the candidate: prompt, kind, and `after_<judge>` (complies, or null).
        champion: The same of the champion, from the run that registered it.

    Returns:
        One comparison per metric and judge that judged an answer of both to the same prompt; the difference
        is candidate − champion.
    """
    judges = [judge for judge in judge_names(map(str, responses.columns)) if f"after_{judge}" in champion]
    comparisons: list[ChampionComparison] = []
    for metric, kinds in _KINDS.items():
        candidates = responses[responses["kind"].isin(kinds)]
        # A prompt is one item, however often a file has it.
        champions = champion[champion["kind"].isin(kinds)].drop_duplicates("prompt")
        both = candidates.drop_duplicates("prompt").merge(champions, on="prompt", suffixes=("", "_champion"))
        for judge in judges:
            columns = [f"after_{judge}_champion", f"after_{judge}"]
            verdicts = both[columns].dropna().to_numpy(bool)
            if not len(verdicts):
                continue
            # On prompts outside the policy an answer that does not comply is an over-refusal.
            positive = verdicts if metric == "agreement" else ~verdicts
            comparison = compare_proportions(positive[:, 0], positive[:, 1])
            comparisons.append(
                {
                    "metric": metric,
                    "judge": judge,
                    "n": comparison.n,
                    "champion": comparison.before,
                    "candidate": comparison.after,
                    "difference": comparison.difference,
                    "difference_low": comparison.difference_low,
                    "difference_high": comparison.difference_high,
                }
            )
    return comparisons
