"""Compare a candidate with the champion that it would replace: the same prompts, the same judge, paired."""

from itertools import chain

import pandas as pd

from realignment.evaluation.measures import compliance_rows
from realignment.evaluation.table import COLUMNS
from realignment.records import judge_names


def compare_with_champion(responses: pd.DataFrame, champion: pd.DataFrame) -> pd.DataFrame:
    """Compare the answers of candidate and champion on the prompts that both have answered.

    Args:
        responses: Judged answers of the candidate: prompt, kind, domain, origin, and `after_<judge>`
            (complies, or null).
        champion: The same of the champion, from the run that registered it.

    Returns:
        Agreement and over-refusal as in the evaluation table (`COLUMNS`), by every judge that judged answers
        of both to the same prompts; `before` is the champion, `after` the candidate.
    """
    judges = [judge for judge in judge_names(map(str, responses.columns)) if f"after_{judge}" in champion]
    former = {f"after_{judge}": f"before_{judge}" for judge in judges}
    # A prompt is one item, however often a file has it.
    item = ["prompt", "kind"]
    candidates = responses.drop_duplicates(item).drop(columns=list(former.values()), errors="ignore")
    champions = champion.drop_duplicates(item)[[*item, *former]].rename(columns=former)
    both = candidates.merge(champions, on=item)
    rows = chain.from_iterable(compliance_rows(both, judge) for judge in judges)
    return pd.DataFrame(rows, columns=list(COLUMNS))
