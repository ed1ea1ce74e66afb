"""Labels of a table that is larger than memory: 8 bytes of hash and a small number for each response."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from realignment.intake.flags import read_verdict_column
from realignment.intake.seen_keys import Hashes, hash_key, hash_keys

Value = TypeVar("Value")
Codes = npt.NDArray[np.int32]

HashedCodes = tuple[Hashes, Codes]
"""Hashes of keys and the code of each, shape (n,) both."""

_LABELS = (None, True, False)
"""Labels by code. Bit 0 of a code: labelled as complying; bit 1: as violating; both: unknown."""


@dataclass(frozen=True)
class LabelIndex(Generic[Value]):
    """A mapping from (prompt, response) that stores hashes instead of the keys.

    Attributes:
        hashes: Hashes of the keys, sorted, shape (n,).
        codes: Index into `values` of each key, shape (n,).
        values: The different values; None: not known.
    """

    hashes: Hashes
    codes: Codes
    values: tuple[Value | None, ...]

    def get(self, key: tuple[str, str], /) -> Value | None:
        """Return the value of this prompt and response; None where there is none."""
        key_hash = np.uint64(hash_key(key))
        place = int(np.searchsorted(self.hashes, key_hash))
        is_indexed = place < len(self.hashes) and self.hashes[place] == key_hash
        return self.values[self.codes[place]] if is_indexed else None


def index_labels(parts: Iterable[pd.DataFrame]) -> tuple[LabelIndex[bool], LabelIndex[tuple[str, ...]]]:
    """Index the labels of a table part by part.

    It finds what `labels.read_truth_labels` and `labels.read_truth_rules` find in the whole table.

    Args:
        parts: Pairs with `records.TRUTH_COLUMNS`, and chosen_rules, rejected_rules where they are graded.

    Returns:
        Labels, and the rules and tiers that responses break.
    """
    labels: list[HashedCodes] = []
    rules: dict[str, list[HashedCodes]] = {"chosen": [], "rejected": []}
    # Code of each different cell of rules, numbered as they come; 0: none.
    rule_codes = {"": 0}
    for part in parts:
        for response, rule_parts in rules.items():
            if f"{response}_complies" not in part:
                continue
            hashes = hash_keys(zip(part["prompt"], part[response], strict=True))
            verdicts = read_verdict_column(part, f"{response}_complies")
            bits = np.where(verdicts.isna(), 0, np.where(verdicts.fillna(False).to_numpy(bool), 1, 2))
            labels.append((hashes, bits.astype(np.int32)))
            if f"{response}_rules" in part:
                cells = part[f"{response}_rules"].fillna("")
                codes = [rule_codes.setdefault(cell, len(rule_codes)) for cell in cells]
                rule_parts.append((hashes, np.array(codes, np.int32)))
    values = tuple(tuple(cell.split(",")) if cell else None for cell in rule_codes)
    label_index = LabelIndex(*_combine(labels), _LABELS)
    # Chosen responses first, as `read_truth_rules` reads them: the last rules of a response count.
    rule_index = LabelIndex(*_keep_last([*rules["chosen"], *rules["rejected"]]), values)
    return label_index, rule_index


def _combine(parts: list[HashedCodes]) -> HashedCodes:
    """Return every hash once, with its codes combined by OR; without those labelled both ways."""
    hashes, codes = _sort(parts)
    # Equal hashes are neighbours; the first of each begins a group.
    starts = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1]][: len(hashes)])
    bits = np.bitwise_or.reduceat(codes, starts) if len(starts) else codes
    return hashes[starts][bits < 3], bits[bits < 3]


def _keep_last(parts: list[HashedCodes]) -> HashedCodes:
    """Return every hash once, with its last code."""
    hashes, codes = _sort(parts)
    ends = np.flatnonzero(np.r_[hashes[1:] != hashes[:-1], True][: len(hashes)])
    return hashes[ends], codes[ends]


def _sort(parts: list[HashedCodes]) -> HashedCodes:
    """Return all parts in the order of the hashes, without code 0, which says nothing."""
    hash_parts = [np.empty(0, np.uint64)]
    code_parts = [np.empty(0, np.int32)]
    for part_hashes, part_codes in parts:
        is_known = part_codes > 0
        hash_parts.append(part_hashes[is_known])
        code_parts.append(part_codes[is_known])
    hashes = np.concatenate(hash_parts)
    codes = np.concatenate(code_parts)
    # Stable, so that equal hashes stay in the order of the table.
    order = np.argsort(hashes, kind="stable")
    return hashes[order], codes[order]
