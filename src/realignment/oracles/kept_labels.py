"""The labels of a table that is larger than memory: 8 bytes of hash and a small number for each response."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from realignment.intake.flags import verdict_column
from realignment.intake.seen_keys import Hashes, hash_key, hash_keys

Value = TypeVar("Value")
Codes = npt.NDArray[np.int32]

_LABELS = (None, True, False)
"""By the labels that a response was given, as bits; both of them leave it unknown."""


@dataclass(frozen=True)
class KeptByHash(Generic[Value]):
    """A mapping from (prompt, response), of which only hashes are kept.

    Attributes:
        hashes: Of the keys, sorted.
        codes: Which of the values each has.
        values: The different values; None: not known.
    """

    hashes: Hashes
    codes: Codes
    values: tuple[Value | None, ...]

    def get(self, key: tuple[str, str], /) -> Value | None:
        """The value of this prompt and response; None where there is none."""
        sought = np.uint64(hash_key(key))
        place = int(np.searchsorted(self.hashes, sought))
        found = place < len(self.hashes) and self.hashes[place] == sought
        return self.values[self.codes[place]] if found else None


def keep_labels(parts: Iterable[pd.DataFrame]) -> tuple[KeptByHash[bool], KeptByHash[tuple[str, ...]]]:
    """What `labels.truth_labels` and `labels.truth_rules` find in the table that these parts make.

    Args:
        parts: Pairs with `records.TRUTH_COLUMNS`, and chosen_rules, rejected_rules where they are graded.
    """
    labels: list[tuple[Hashes, Codes]] = []
    rules: dict[str, list[tuple[Hashes, Codes]]] = {"chosen": [], "rejected": []}
    known = {"": 0}
    for part in parts:
        for response, found in rules.items():
            if f"{response}_complies" not in part:
                continue
            hashes = hash_keys(zip(part["prompt"], part[response], strict=True))
            given = verdict_column(part, f"{response}_complies")
            bits = np.where(given.isna(), 0, np.where(given.fillna(False).to_numpy(bool), 1, 2))
            labels.append((hashes, bits.astype(np.int32)))
            if f"{response}_rules" in part:
                cells = part[f"{response}_rules"].fillna("")
                found.append((hashes, np.array([known.setdefault(c, len(known)) for c in cells], np.int32)))
    named = tuple(tuple(cell.split(",")) if cell else None for cell in known)
    return (
        KeptByHash(*_combine(labels), _LABELS),
        KeptByHash(*_last([*rules["chosen"], *rules["rejected"]]), named),
    )


def _combine(given: list[tuple[Hashes, Codes]]) -> tuple[Hashes, Codes]:
    """Every hash once, with the bit of all that it was given; none where these are both bits."""
    hashes, codes = _sorted(given)
    starts = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1]][: len(hashes)])
    bits = np.bitwise_or.reduceat(codes, starts) if len(starts) else codes
    return hashes[starts][bits < 3], bits[bits < 3]


def _last(given: list[tuple[Hashes, Codes]]) -> tuple[Hashes, Codes]:
    """Every hash once, with the last code that it was given."""
    hashes, codes = _sorted(given)
    ends = np.flatnonzero(np.r_[hashes[1:] != hashes[:-1], True][: len(hashes)])
    return hashes[ends], codes[ends]


def _sorted(given: list[tuple[Hashes, Codes]]) -> tuple[Hashes, Codes]:
    """What is known (code 0 is not), in the order of the hashes; of one hash in the order that it came."""
    hashes = np.concatenate([np.empty(0, np.uint64), *(hashes[codes > 0] for hashes, codes in given)])
    codes = np.concatenate([np.empty(0, np.int32), *(codes[codes > 0] for _, codes in given)])
    order = np.argsort(hashes, kind="stable")
    return hashes[order], codes[order]
