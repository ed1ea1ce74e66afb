"""Blind comparisons of answers: both orders; people's votes in the same form.

A pair of answers is compared in both orders; where the two verdicts disagree it counts as a tie (Zheng et al.
2023, arXiv:2306.05685, section 3). People's A, B or tie: TRACE, arXiv:2511.02623.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import pandas as pd

from realignment.evaluation.win_rates.comparators import AnswerPair, Better, Comparator, Preference
from realignment.policy import Policy
from realignment.review.comparisons import decide_by_majority

COMPARISON_COLUMNS = (
    "prompt_id", "prompt", "domain", "kind", "first_model", "second_model", "forward", "backward", "score",
    "reason", "judge",
)  # fmt: skip
_SCORES = {Better.FIRST: 1.0, Better.TIE: 0.5, Better.SECOND: 0.0}
_SWAPPED = {Better.FIRST: Better.SECOND, Better.SECOND: Better.FIRST, Better.TIE: Better.TIE}
_EQUAL = Preference(Better.TIE, "both answers are equal")


def compare_answers(
    answers: pd.DataFrame, models: Sequence[str], comparator: Comparator, policy: Policy
) -> pd.DataFrame:
    """Compare the answers of every two models to each prompt, in both orders; equal answers are a tie.

    Args:
        answers: prompt_id, prompt, domain, kind, and one column of answers per model; prompts that only one
            of two models has answered are left out for these two.
        models: Names of these columns, two at least. The comparator does not see them.
        comparator: Says which answer is better.
        policy: The policy to compare by.

    Returns:
        `COMPARISON_COLUMNS`, one row per prompt and two models. `forward` and `backward` say which model was
        better ("first", "second" or "tie") where the first and where the second one's answer was shown first;
        `score` is 1, 0.5 or 0 for the first model, and null where an order has no verdict.
    """
    rows: list[dict[str, Any]] = []
    for first_model, second_model in combinations(models, 2):
        both = answers.dropna(subset=[first_model, second_model]).to_dict("records")
        models_of_row = {"first_model": first_model, "second_model": second_model}
        rows += [{str(name): value for name, value in row.items()} | models_of_row for row in both]
    pairs = [_to_pair(row) for row in rows]
    swapped = [AnswerPair(pair.prompt, pair.second, pair.first, pair.domain) for pair in pairs]
    asked = [place for place, pair in enumerate(pairs) if pair.first != pair.second]
    questions = [pairs[place] for place in asked]
    if not comparator.symmetric:
        questions += [swapped[place] for place in asked]
    found = comparator(questions, policy) if questions else []
    forward = dict(zip(asked, found, strict=False))
    backward = {
        place: preference if comparator.symmetric else _swap(preference)
        for place, preference in zip(asked, found[-len(asked) :], strict=False)
    }
    for place, row in enumerate(rows):
        verdicts = (forward.get(place, _EQUAL), backward.get(place, _EQUAL))
        row |= {
            "forward": None if verdicts[0].better is None else verdicts[0].better.value,
            "backward": None if verdicts[1].better is None else verdicts[1].better.value,
            "score": combine_orders(verdicts[0].better, verdicts[1].better),
            "reason": next((v.reason for v in verdicts if v.better is None), verdicts[0].reason),
            "judge": comparator.name,
        }
    return pd.DataFrame(rows, columns=list(COMPARISON_COLUMNS)).astype({"score": float})


def _to_pair(row: Mapping[Any, Any]) -> AnswerPair:
    domain = row.get("domain")
    return AnswerPair(
        row["prompt"],
        row[row["first_model"]],
        row[row["second_model"]],
        domain if isinstance(domain, str) else None,
    )


def _swap(preference: Preference) -> Preference:
    better = None if preference.better is None else _SWAPPED[preference.better]
    return Preference(better, preference.reason, preference.fault)


def combine_orders(forward: Better | None, backward: Better | None) -> float:
    """Return the score of the first model from its verdicts in both orders.

    Args:
        forward: Which model was better where the first one's answer was shown first.
        backward: Which model was better where it was shown second.

    Returns:
        1 or 0 where both agree; 0.5 where both are ties or disagree; NaN where one is not known.
    """
    if forward is None or backward is None:
        return math.nan
    return _SCORES[forward] if forward == backward else 0.5


def tally_votes(votes: pd.DataFrame, key: pd.DataFrame) -> pd.DataFrame:
    """Return people's votes as comparisons: the majority decides, and equal answers are a tie.

    Args:
        votes: From `review.comparisons.check_votes`.
        key: From `review.comparisons.pair_answers`.

    Returns:
        `COMPARISON_COLUMNS`; people saw one order, so `backward` is null. What nobody has voted on has a null
        score.
    """
    names = {"a": Better.FIRST.value, "b": Better.SECOND.value, "tie": Better.TIE.value}
    majority = decide_by_majority(votes).map(names)
    verdicts = key["task_id"].map(majority).astype(object)
    verdicts = verdicts.where(key["response_a"] != key["response_b"], Better.TIE.value)
    known = verdicts.notna()
    table = key.rename(columns={"model_a": "first_model", "model_b": "second_model"}).assign(
        forward=verdicts.where(known, None),
        backward=None,
        score=verdicts.map(_SCORES).astype(float),
        reason=known.map({True: "", False: "nobody has voted"}),
        judge="people",
    )
    return table.reindex(columns=list(COMPARISON_COLUMNS))


def list_positions(comparisons: pd.DataFrame) -> pd.DataFrame:
    """List every verdict for one of two answers with whether it was the one shown first.

    Args:
        comparisons: From `compare_answers`, of a comparator that is not symmetric.

    Returns:
        prompt, shown_first (bool); ties and missing verdicts are left out.
    """
    forward = comparisons[["prompt"]].assign(shown_first=comparisons["forward"] == Better.FIRST)
    backward = comparisons[["prompt"]].assign(shown_first=comparisons["backward"] == Better.SECOND)
    decided = (Better.FIRST.value, Better.SECOND.value)
    return pd.concat(
        [
            forward[comparisons["forward"].isin(decided)],
            backward[comparisons["backward"].isin(decided)],
        ],
        ignore_index=True,
    )


def list_voted_positions(votes: pd.DataFrame, key: pd.DataFrame) -> pd.DataFrame:
    """List every person's vote for one of two answers with whether it was the one shown first.

    Args:
        votes: From `review.comparisons.check_votes`.
        key: From `review.comparisons.pair_answers`.

    Returns:
        prompt, shown_first (bool).
    """
    prompts = key.drop_duplicates("task_id").set_index("task_id")["prompt"]
    decided = votes[votes["verdict"] != "tie"]
    columns = {"prompt": decided["task_id"].map(prompts), "shown_first": decided["verdict"] == "a"}
    return pd.DataFrame(columns)
