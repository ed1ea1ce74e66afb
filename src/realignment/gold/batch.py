"""Held-out pairs, the gold batch, and what is left to train on: no prompt of it is in the other two."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from realignment.records import CONFLICTS, DataError, Disposition


@dataclass(frozen=True, slots=True)
class Parts:
    """The three disjoint parts of the triaged pairs.

    Attributes:
        held_out: For evaluation; never scored, never trained on. Further pairs of a gold prompt are here too.
        gold: Defines the direction of the gold gradient; columns `preferred`, `dispreferred` are added.
        training: Everything else.
    """

    held_out: pd.DataFrame
    gold: pd.DataFrame
    training: pd.DataFrame


def partition(
    triaged: pd.DataFrame,
    *,
    held_out_share: float,
    gold_size: int,
    composition: Literal["random", "policy_targeted"],
    seed: int,
) -> Parts:
    """Split into held-out, gold and training parts by prompt, stratified by disposition.

    Gold rows are held out of scoring and training: a row that is in the gold batch is its own influence.

    Args:
        triaged: INVERT, PUNISH and RETAIN pairs.
        held_out_share: Share of the prompts of each disposition, in [0, 1).
        gold_size: B: ⌊B/3⌋ RETAIN, ⌊B/3⌋ INVERT, the rest PUNISH; what one lacks, the others give.
        composition: ``random``, or ``policy_targeted``: conflicts drawn evenly over the broken rules.
        seed: Of the draw.

    Raises:
        DataError: The gold batch would leave less than half of the conflicts to train on.
    """
    rng = np.random.default_rng(seed)
    order = triaged.iloc[rng.permutation(len(triaged))]
    held_out = _draw_prompts(order, held_out_share)
    rest = order[~order["prompt"].isin(held_out["prompt"])]
    gold = _draw_gold(rest, gold_size, composition)
    training = rest[~rest["prompt"].isin(gold["prompt"])]
    # Another pair of a gold prompt shares its text with the gold row, so training on it would reward its own
    # influence; a gold batch of whole prompts would have few of them. So it is held out.
    siblings = rest[rest["prompt"].isin(gold["prompt"]) & ~rest["pair_id"].isin(gold["pair_id"])]
    held_out = pd.concat([held_out, siblings])
    _check_sizes(rest, gold, training, gold_size)
    return Parts(*(_in_order(part) for part in (held_out, _with_preference(gold), training)))


def _in_order(part: pd.DataFrame) -> pd.DataFrame:
    return part.sort_index().reset_index(drop=True)


def _draw_prompts(order: pd.DataFrame, share: float) -> pd.DataFrame:
    """All pairs of a random share of the prompts; a prompt counts under the disposition of its first pair."""
    prompts = order.drop_duplicates("prompt")
    sizes = prompts.groupby("disposition")["prompt"].transform("size")
    ranks = prompts.groupby("disposition").cumcount()
    drawn = prompts.loc[ranks < (sizes * share).round(), "prompt"]
    return order[order["prompt"].isin(drawn)]


def gold_quota(available: dict[str, int], size: int) -> dict[str, int]:
    """Gold pairs of each disposition: thirds, PUNISH taking the rest; what one lacks, the others give."""
    wanted = dict.fromkeys((Disposition.RETAIN, Disposition.INVERT), size // 3)
    wanted[Disposition.PUNISH] = size - 2 * (size // 3)
    quota = {str(d): min(n, available.get(d, 0)) for d, n in wanted.items()}
    for disposition in (Disposition.INVERT, Disposition.RETAIN, Disposition.PUNISH):
        missing = size - sum(quota.values())
        quota[disposition] += max(0, min(missing, available.get(disposition, 0) - quota[disposition]))
    return quota


def _draw_gold(rest: pd.DataFrame, size: int, composition: str) -> pd.DataFrame:
    # Prompts with few pairs first: the other pairs of a gold prompt cannot be trained on.
    order = rest.iloc[rest.groupby("prompt")["prompt"].transform("size").argsort(kind="stable")]
    # A gold pair states a preference: a PUNISH pair can do so only where it has a verified correction.
    usable = order[(order["disposition"] != Disposition.PUNISH) | order["correction"].notna()]
    usable = usable.drop_duplicates("prompt")
    available = {str(d): int((usable["disposition"] == d).sum()) for d in Disposition}
    quota = gold_quota(available, size)
    parts = []
    for disposition, number in quota.items():
        members = usable[usable["disposition"] == disposition]
        if composition == "policy_targeted":
            # Round-robin over the rules: the k-th pair of every rule before the (k+1)-th of any.
            members = members.iloc[members.groupby("rules_broken").cumcount().argsort(kind="stable")]
        parts.append(members.head(number))
    return pd.concat(parts)


def _with_preference(gold: pd.DataFrame) -> pd.DataFrame:
    """RETAIN: chosen ≻ rejected; INVERT: rejected ≻ chosen; PUNISH: correction ≻ chosen."""
    source = {Disposition.RETAIN: "chosen", Disposition.INVERT: "rejected", Disposition.PUNISH: "correction"}
    against = {Disposition.RETAIN: "rejected", Disposition.INVERT: "chosen", Disposition.PUNISH: "chosen"}
    kinds = [Disposition(d) for d in gold["disposition"]]
    rows = gold.to_dict("records")
    return gold.assign(
        preferred=[row[source[kind]] for row, kind in zip(rows, kinds, strict=True)],
        dispreferred=[row[against[kind]] for row, kind in zip(rows, kinds, strict=True)],
    )


def _check_sizes(rest: pd.DataFrame, gold: pd.DataFrame, training: pd.DataFrame, size: int) -> None:
    conflicts = int(rest["disposition"].isin(CONFLICTS).sum())
    left = int(training["disposition"].isin(CONFLICTS).sum())
    if len(gold) < size or (conflicts and left < conflicts / 2):
        raise DataError(
            f"A gold batch of {size} pairs is too large: after the held-out ones {len(rest)} pairs with "
            f"{conflicts} conflicts are there. {len(gold)} gold pairs can be drawn (one a prompt, a PUNISH "
            f"pair only with a verified correction), and {left} conflicts would be left to train on. Lower "
            "`gold.size` (a fifth of the conflicts is a good start), or give more pairs."
        )
