"""The nouns everything speaks: exchanges, judgments, dispositions, and the columns of their tables."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

import pandas as pd

PAIR_COLUMNS = ("pair_id", "prompt", "chosen", "rejected", "domain", "messages", "correction")
"""Columns of every table of pairs. `domain`, `messages` and `correction` may be null; see `intake.py`."""

TRUTH_COLUMNS = ("chosen_complies", "rejected_complies")
"""Optional truth under the new policy: it measures an oracle; only `oracle: labels` triages by it."""


GRADE_COLUMNS = ("chosen_categories", "chosen_severity", "rejected_categories", "rejected_severity")
"""Optional grades of harm; a policy with tiers makes verdicts of them (`policy.severity.grade`)."""

Counts = Counter[tuple[str, ...]]
"""Numbers by what they count; those of a table are the sums of those of its parts."""


class Disposition(StrEnum):
    """What the two judgments of a pair make of it (method.md, section 3)."""

    INVERT = "INVERT"
    PUNISH = "PUNISH"
    RETAIN = "RETAIN"
    REVIEW = "REVIEW"


CONFLICTS = (Disposition.INVERT, Disposition.PUNISH)
"""The chosen response violates the new policy: these are weighted, and trained away from it."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One prompt, one response, and the topic that the data gives it (None where it gives none)."""

    prompt: str
    response: str
    domain: str | None = None


@dataclass(frozen=True, slots=True)
class Judgment:
    """What an oracle says of one exchange. Not knowing is a value: ``complies=None``, never a guess.

    `fault` marks a verdict that is missing for a reason which may be gone when the oracle is asked again.
    """

    complies: bool | None
    confidence: float
    rules_broken: tuple[str, ...] = ()
    reason: str = ""
    oracle: str = ""
    fault: bool = False


class RealignmentError(Exception):
    """Base of every error this package raises on purpose: what was found, what was expected, what to do."""


class DataError(RealignmentError):
    """The data cannot be used as it is."""


class HealthError(RealignmentError):
    """A health check stops the run before more work is lost (method.md, section 10)."""


class OracleError(RealignmentError):
    """The oracle cannot judge at all: nothing is lost, and the next run continues."""


class NothingToDo(SystemExit):
    """The run ends here, and well: there is nothing to do. A `SystemExit` with status 0: a success."""

    latest: "ClassVar[NothingToDo | None]" = None
    """The one that ended the latest run: Kedro tells its hooks of no `SystemExit`, so they look here."""

    def __init__(self, reason: str) -> None:
        super().__init__(0)
        self.reason = reason
        type(self).latest = self
        logging.getLogger(__name__).info(reason)


def digest_table(table: pd.DataFrame) -> str:
    """sha256 over columns and cells in order: equal tables, equal digests, on any machine."""
    if table.empty:
        return hashlib.sha256(b"empty table").hexdigest()
    text = table.reset_index(drop=True).to_json(orient="split", double_precision=15, date_format="iso")
    return hashlib.sha256(text.encode()).hexdigest()


def digest_parts(parts: Iterable[pd.DataFrame], rows: int) -> str:
    """`digest_table` of the table of so many rows that these parts make; one part is held at a time."""
    if not rows:
        return hashlib.sha256(b"empty table").hexdigest()
    digest, separator = hashlib.sha256(), b""
    for part in (part for part in parts if len(part)):
        if not separator:
            _begin(digest, part, rows)
        cells = part.to_json(orient="values", double_precision=15, date_format="iso")[1:-1]
        digest.update(separator + cells.encode())
        separator = b","
    digest.update(b"]}")
    return digest.hexdigest()


def _begin(digest: Any, part: pd.DataFrame, rows: int) -> None:
    """What `to_json` writes before the cells: the columns, and the numbers of all rows."""
    columns = part.iloc[:0].to_json(orient="split").removesuffix('"index":[],"data":[]}')
    digest.update(f'{columns}"index":['.encode())
    for start in range(0, rows, 100_000):
        numbers = ",".join(map(str, range(start, min(start + 100_000, rows))))
        digest.update(("," if start else "").encode() + numbers.encode())
    digest.update(b'],"data":[')
