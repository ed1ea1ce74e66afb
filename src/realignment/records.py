"""The data types of the whole project: exchanges, judgments, dispositions, columns of their tables."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

import pandas as pd

PAIR_COLUMNS = ("pair_id", "prompt", "chosen", "rejected", "domain", "messages", "correction")
"""Columns of every table of pairs. `domain`, `messages` and `correction` may be null; see `intake`."""

TRUTH_COLUMNS = ("chosen_complies", "rejected_complies")
"""Optional truth under the new policy: it measures an oracle; only `oracle: labels` triages by it."""

GRADE_COLUMNS = ("chosen_categories", "chosen_severity", "rejected_categories", "rejected_severity")
"""Optional grades of harm; a policy with tiers makes verdicts of them (`policy.severity.grade_pairs`)."""

ANSWER_MEASURES = ("cut", "entropy")
"""Of an answer, in the columns `before_…` and `after_…` beside those of the judges."""

Counts = Counter[tuple[str, ...]]
"""Counts by what they count; the counts of a table are the sum of those of its parts."""


class Disposition(StrEnum):
    """What is done with a pair, as its two judgments imply (method.md, section 3)."""

    INVERT = "INVERT"
    PUNISH = "PUNISH"
    RETAIN = "RETAIN"
    REVIEW = "REVIEW"


CONFLICTS = (Disposition.INVERT, Disposition.PUNISH)
"""The chosen response violates the new policy: these are weighted, and trained away from it."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One prompt, one response, and the topic in the data (None where there is none)."""

    prompt: str
    response: str
    domain: str | None = None


@dataclass(frozen=True, slots=True)
class Judgment:
    """An oracle's judgment of one exchange. Not knowing is a value: ``complies=None``, never a guess.

    Attributes:
        complies: Whether the response complies with the policy; None: not known.
        confidence: In the verdict, in [0, 1].
        rules_broken: Ids of the rules that the response violates.
        reason: Of the verdict, or why there is none.
        oracle: Name of the oracle.
        fault: Whether the verdict is missing for a reason which may be gone when the oracle is asked again.
    """

    complies: bool | None
    confidence: float
    rules_broken: tuple[str, ...] = ()
    reason: str = ""
    oracle: str = ""
    fault: bool = False


class RealignmentError(Exception):
    """Base of all errors of this package; a message says what was found, what was expected, what to do."""


class DataError(RealignmentError):
    """The data cannot be used as it is."""


class HealthError(RealignmentError):
    """A health check stops the run before more work is lost (method.md, section 10)."""


class OracleError(RealignmentError):
    """The oracle cannot judge at all: no verdict is lost, and the next run continues."""


class NothingToDo(SystemExit):
    """The run ends here because there is nothing to do. A `SystemExit` with status 0: a success."""

    latest: "ClassVar[NothingToDo | None]" = None
    """The one that ended the latest run: Kedro calls no hook at a `SystemExit`, so the hooks read it here."""

    def __init__(self, reason: str) -> None:
        super().__init__(0)
        self.reason = reason
        type(self).latest = self
        logging.getLogger(__name__).info(reason)


HEADLINE_GROUPS = {"agreement": "regulated", "over_refusal": "overall"}
"""Metric that judges measure → the group of the evaluation table that stands for it."""


def judge_names(columns: Iterable[str]) -> list[str]:
    """Return the judges of a table of judged answers, in order.

    Args:
        columns: Names of its columns.

    Returns:
        J of each column `after_J` that holds verdicts.

    Example:
        >>> judge_names(["prompt", "before", "after", "after_cut", "before_rules", "after_rules"])
        ['rules']
    """
    names = [column.removeprefix("after_") for column in columns if column.startswith("after_")]
    return [name for name in names if name not in ANSWER_MEASURES]


def digest_table(table: pd.DataFrame) -> str:
    """Return the sha256 over columns and cells in order: equal tables, equal digests, on any machine."""
    if table.empty:
        return hashlib.sha256(b"empty table").hexdigest()
    text = table.reset_index(drop=True).to_json(orient="split", double_precision=15, date_format="iso")
    return hashlib.sha256(text.encode()).hexdigest()


def digest_parts(parts: Iterable[pd.DataFrame], rows: int) -> str:
    """Return the `digest_table` of a table that comes in parts, of which one at a time is in memory.

    Args:
        parts: The rows in order; parts may be empty.
        rows: Their number in all.

    Returns:
        64 hexadecimal digits.
    """
    if not rows:
        return hashlib.sha256(b"empty table").hexdigest()
    # The text whose sha256 `digest_table` takes: {"columns":[…],"index":[0,1,…],"data":[[…],[…],…]}.
    digest = hashlib.sha256()
    separator = b""
    for part in parts:
        if not len(part):
            continue
        if not separator:
            _add_head(digest, part, rows)
        # Without the brackets around the rows: those of all parts make one list.
        cells = part.to_json(orient="values", double_precision=15, date_format="iso")[1:-1]
        digest.update(separator + cells.encode())
        separator = b","
    digest.update(b"]}")
    return digest.hexdigest()


def _add_head(digest: Any, part: pd.DataFrame, rows: int) -> None:
    """Add what `to_json` writes before the cells: the columns, and the numbers of all rows."""
    columns = part.iloc[:0].to_json(orient="split").removesuffix('"index":[],"data":[]}')
    digest.update(f'{columns}"index":['.encode())
    # So many numbers at a time: the list of all would take more memory than a part of the table.
    for start in range(0, rows, 100_000):
        numbers = ",".join(map(str, range(start, min(start + 100_000, rows))))
        separator = "," if start else ""
        digest.update(f"{separator}{numbers}".encode())
    digest.update(b'],"data":[')
