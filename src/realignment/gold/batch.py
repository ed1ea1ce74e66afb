"""Split the pairs into held-out pairs, the gold batch and training pairs, which share no prompt."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from realignment.records import CONFLICTS, DataError, Disposition


@dataclass(frozen=True, slots=True)
class Partition:
    """The three disjoint parts of the triaged pairs.

    Attributes:
        held_out: For evaluation; never scored, never trained on. Further pairs of a gold prompt are here too.
        gold: Defines the direction of the gold gradient; columns `preferred`, `dispreferred` are added.
        training: Everything else.
    """

    held_out: pd.DataFrame
    gold: pd.DataFrame
    training: pd.DataFrame


def partition_pairs(
    triaged: pd.DataFrame,
    *,
    held_out_share: float,
    gold_size: int,
    composition: Literal["random", "policy_targeted"],
    seed: int,
) -> Partition:
    """Split pairs into held-out, gold and training parts by prompt, stratified by disposition.

    Gold rows are held out of scoring and training: a row that is in the gold batch is its own influence.

    Args:
        triaged: INVERT, PUNISH and RETAIN pairs.
        held_out_share: Share of the prompts of each disposition, in [0, 1).
        gold_size: B: ⌊B/3⌋ RETAIN, ⌊B/3⌋ INVERT, the rest PUNISH; what one lacks, the others give.
        composition: ``random``, or ``policy_targeted``: conflicts drawn evenly over the broken rules.
        seed: Of the draw.

    Returns:
        The three parts, each in the order of the input.

    Raises:
        DataError: The gold batch would leave less than half of the conflicts to train on.
    """
    rng = np.random.default_rng(seed)
    shuffled = triaged.iloc[rng.permutation(len(triaged))]
    held_out = _draw_prompts(shuffled, held_out_share)
    rest = shuffled[~shuffled["prompt"].isin(held_out["prompt"])]
    gold = _draw_gold(rest, gold_size, composition)
    has_gold_prompt = rest["prompt"].isin(gold["prompt"])
    training = rest[~has_gold_prompt]
    # Another pair of a gold prompt shares its text with the gold row, so training on it would reward its own
    # influence; a gold batch of whole prompts would have few of them. So it is held out.
    siblings = rest[has_gold_prompt & ~rest["pair_id"].isin(gold["pair_id"])]
    held_out = pd.concat([held_out, siblings])
    _check_sizes(rest, gold, training, gold_size)
    return Partition(
        held_out=_in_input_order(held_out),
        gold=_in_input_order(_with_preference(gold)),
        training=_in_input_order(training),
    )


def _in_input_order(part: pd.DataFrame) -> pd.DataFrame:
    # The index still numbers the rows of the input.
    return part.sort_index().reset_index(drop=True)


def _draw_prompts(shuffled: pd.DataFrame, share: float) -> pd.DataFrame:
    """Draw all pairs of a random share of the prompts; a prompt has the disposition of its first pair."""
    prompts = shuffled.drop_duplicates("prompt")
    # Number of prompts with the same disposition, and the rank of each among them in the random order.
    sizes = prompts.groupby("disposition")["prompt"].transform("size")
    ranks = prompts.groupby("disposition").cumcount()
    drawn = prompts.loc[ranks < (sizes * share).round(), "prompt"]
    return shuffled[shuffled["prompt"].isin(drawn)]


def compute_gold_quota(available: dict[str, int], size: int) -> dict[str, int]:
    """Return how many gold pairs each disposition gives: thirds, PUNISH taking the remainder.

    What one disposition lacks, the others give.

    Args:
        available: Usable pairs of each disposition.
        size: Gold pairs in all, B.

    Returns:
        Number of pairs by disposition; their sum is below `size` only where there are too few pairs.

    Example:
        >>> compute_gold_quota({"RETAIN": 20, "INVERT": 2, "PUNISH": 20}, 10)
        {'RETAIN': 4, 'INVERT': 2, 'PUNISH': 4}
    """
    third = size // 3
    thirds = {
        Disposition.RETAIN: third,
        Disposition.INVERT: third,
        Disposition.PUNISH: size - 2 * third,
    }
    quota = {
        str(disposition): min(count, available.get(disposition, 0)) for disposition, count in thirds.items()
    }
    # Fill up what is missing, one disposition after another, as far as each has pairs left.
    for disposition in (Disposition.INVERT, Disposition.RETAIN, Disposition.PUNISH):
        missing = size - sum(quota.values())
        unused = available.get(disposition, 0) - quota[disposition]
        quota[disposition] += max(0, min(missing, unused))
    return quota


def _draw_gold(rest: pd.DataFrame, size: int, composition: str) -> pd.DataFrame:
    # Prompts with few pairs first: the other pairs of a gold prompt cannot be trained on.
    pairs_of_prompt = rest.groupby("prompt")["prompt"].transform("size")
    candidates = rest.iloc[pairs_of_prompt.argsort(kind="stable")]
    # A gold pair states a preference: a PUNISH pair can do so only where it has a verified correction.
    states_preference = (candidates["disposition"] != Disposition.PUNISH) | candidates["correction"].notna()
    usable = candidates[states_preference].drop_duplicates("prompt")
    available = {str(d): int((usable["disposition"] == d).sum()) for d in Disposition}
    quota = compute_gold_quota(available, size)
    parts = []
    for disposition, count in quota.items():
        members = usable[usable["disposition"] == disposition]
        if composition == "policy_targeted":
            # Round-robin over the rules: the k-th pair of every rule before the (k+1)-th of any.
            rank_in_rule = members.groupby("rules_broken").cumcount()
            members = members.iloc[rank_in_rule.argsort(kind="stable")]
        parts.append(members.head(count))
    return pd.concat(parts)


def _with_preference(gold: pd.DataFrame) -> pd.DataFrame:
    """RETAIN: chosen ≻ rejected; INVERT: rejected ≻ chosen; PUNISH: correction ≻ chosen."""
    preferred_column = {
        Disposition.RETAIN: "chosen",
        Disposition.INVERT: "rejected",
        Disposition.PUNISH: "correction",
    }
    dispreferred_column = {
        Disposition.RETAIN: "rejected",
        Disposition.INVERT: "chosen",
        Disposition.PUNISH: "chosen",
    }
    preferred = []
    dispreferred = []
    for row in gold.to_dict("records"):
        disposition = Disposition(row["disposition"])
        preferred.append(row[preferred_column[disposition]])
        dispreferred.append(row[dispreferred_column[disposition]])
    return gold.assign(preferred=preferred, dispreferred=dispreferred)


def _check_sizes(rest: pd.DataFrame, gold: pd.DataFrame, training: pd.DataFrame, size: int) -> None:
    conflicts = int(rest["disposition"].isin(CONFLICTS).sum())
    remaining = int(training["disposition"].isin(CONFLICTS).sum())
    if len(gold) < size or (conflicts and remaining < conflicts / 2):
        raise DataError(
            f"A gold batch of {size} pairs is too large: after the held-out ones {len(rest)} pairs with "
            f"{conflicts} conflicts are there. {len(gold)} gold pairs can be drawn (one a prompt, a PUNISH "
            f"pair only with a verified correction), and {remaining} conflicts would be left to train on. "
            "Lower `gold.size` (a fifth of the conflicts is a good start), or give more pairs."
        )
