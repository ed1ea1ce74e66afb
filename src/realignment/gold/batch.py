"""Split the pairs into held-out pairs, the gold batch and training pairs, which share no prompt."""

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from realignment.gold.drawing import draw_gold, select_candidates
from realignment.gold.preferences import state_preferences
from realignment.records import CONFLICTS, DataError, Disposition

logger = logging.getLogger(__name__)

_NO_RETAINED = (
    "The gold batch has no RETAIN pair: no rejected response of one is known to violate the policy. "
    "Conflicts take the places, so the gold gradient says what changes and not what stays. "
    "`gold.retained: all` takes RETAIN pairs whose two responses comply; these state only the old preference."
)


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
    retained: Literal["decided", "all"] = "decided",
    punished: Literal["correction", "random_compliant"] = "correction",
) -> Partition:
    """Split pairs into held-out, gold and training parts by prompt, stratified by disposition.

    Gold rows are held out of scoring and training: a row that is in the gold batch is its own influence.

    Args:
        triaged: INVERT, PUNISH and RETAIN pairs.
        held_out_share: Share of the prompts of each disposition, in [0, 1).
        gold_size: B: ⌊B/3⌋ RETAIN, ⌊B/3⌋ INVERT, the rest PUNISH; what one lacks, the others give.
        composition: ``random``, or ``policy_targeted``: conflicts drawn evenly over the broken rules.
        seed: Of the draw.
        retained: ``decided``: gold RETAIN pairs have a rejected response that violates; ``all``: any.
        punished: ``correction``: gold PUNISH pairs have a correction; ``random_compliant``: those without one
            prefer a random compliant response to another prompt.

    Returns:
        The three parts, each in the order of the input.

    Raises:
        DataError: The gold batch cannot be filled, or would leave less than half of the conflicts to train
            on.
    """
    rng = np.random.default_rng(seed)
    shuffled = triaged.iloc[rng.permutation(len(triaged))]
    held_out = _draw_prompts(shuffled, held_out_share)
    rest = shuffled[~shuffled["prompt"].isin(held_out["prompt"])]
    candidates = select_candidates(rest, retained=retained, punished=punished)
    gold = draw_gold(candidates, gold_size, composition)
    has_gold_prompt = rest["prompt"].isin(gold["prompt"])
    training = rest[~has_gold_prompt]
    # Another pair of a gold prompt shares its text with the gold row, so training on it would reward its own
    # influence; a gold batch of whole prompts would have few of them. So it is held out.
    siblings = rest[has_gold_prompt & ~rest["pair_id"].isin(gold["pair_id"])]
    held_out = pd.concat([held_out, siblings])
    remaining = int(training["disposition"].isin(CONFLICTS).sum())
    _check_sizes(rest, len(gold), gold_size, remaining=remaining, retained=retained, punished=punished)
    if retained == "decided" and not (gold["disposition"] == Disposition.RETAIN).any():
        logger.warning(_NO_RETAINED)
    # A held-out response must not be in the gold batch either, so the pool is what is not held out.
    gold = state_preferences(gold, pd.concat([gold, training]), rng)
    return Partition(
        held_out=_in_input_order(held_out), gold=_in_input_order(gold), training=_in_input_order(training)
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


def _check_sizes(
    rest: pd.DataFrame, drawn: int, size: int, *, remaining: int, retained: str, punished: str
) -> None:
    conflicts = int(rest["disposition"].isin(CONFLICTS).sum())
    if drawn == size and (not conflicts or remaining >= conflicts / 2):
        return
    conditions = ["one a prompt"]
    if punished == "correction":
        conditions.append("a PUNISH pair only with a verified correction")
    if retained == "decided":
        conditions.append("a RETAIN pair only where its rejected response violates")
    raise DataError(
        f"A gold batch of {size} pairs is too large: after the held-out ones {len(rest)} pairs with "
        f"{conflicts} conflicts are there. {drawn} gold pairs can be drawn ({', '.join(conditions)}), and "
        f"{remaining} conflicts would be left to train on. Lower `gold.size` (a fifth of the conflicts is a "
        "good start), or give more pairs."
    )
