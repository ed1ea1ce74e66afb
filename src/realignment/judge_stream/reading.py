"""Raw rows → clean, graded pairs, part by part."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from realignment import intake
from realignment.intake.formats import detect_format
from realignment.intake.screening import SeenRows
from realignment.intake.shards import Shards
from realignment.parameters import IntakeParameters
from realignment.policy import Policy
from realignment.policy.severity import categories_of, check_categories, grade_part
from realignment.records import Counts, DataError
from realignment.table_files import TableFile, TableWriter, WorkFolder

_SUMS = ("rows", "pairs", "rejected", "truncated")


@dataclass(frozen=True, slots=True)
class CleanPairs:
    """`intake.Intake`, its tables on disk and its pairs graded."""

    pairs: TableFile
    rejected_rows: TableFile
    report: dict[str, Any]


def read_pairs(
    raw: Shards, policy: Policy, parameters: IntakeParameters, *, folder: WorkFolder, size: int, seed: int
) -> CleanPairs:
    """Clean and grade the pairs, as the stage `judging` does.

    Args:
        raw: The table; its format is told by its columns and its first part.
        policy: Its tiers make verdicts of grades.
        parameters: As in the stage; the draw of `limit` is the same.
        folder: Of the tables.
        size: Rows of a part.
        seed: Of the draw.

    Raises:
        DataError: As `intake.clean_pairs` and `policy.severity.grade`, before anything is judged.
    """
    settings = parameters.model_dump(exclude={"limit"})
    keep = _draw(len(raw), parameters.limit, seed)
    layout, seen, categories = None, SeenRows(), set[str]()
    counts: Counts = Counter()
    report: dict[str, Any] = {}
    with TableWriter(folder, "pairs") as pairs, TableWriter(folder, "rejected_rows") as rejected:
        for part in shown(raw.read(size, keep), "Reading the pairs", len(raw)):
            layout = layout or detect_format(part)
            clean = intake.clean_rows(part, layout, **settings, seen=seen)
            categories |= categories_of(clean.pairs) if policy.tiers else set()
            pairs.append(grade_part(clean.pairs, policy))
            rejected.append(clean.rejected_rows)
            report = clean.report
            counts.update({(name,): report[name] for name in _SUMS})
            counts.update({("reason", reason): n for reason, n in report["reasons"].items()})
        if not counts["pairs",]:
            raise DataError(f"None of the {counts['rejected',]} rows can be used: {_reasons(counts)}.")
        check_categories(categories, policy)
        report |= {name: counts[name,] for name in _SUMS}
        report |= {"reasons": _reasons(counts)} | ({"files": raw.list_files()} if len(raw.shards) > 1 else {})
        return CleanPairs(pairs.finish(), rejected.finish(), report)


def _reasons(counts: Counts) -> dict[str, int]:
    return {key[1]: count for key, count in counts.most_common() if key[0] == "reason"}


def _draw(rows: int, limit: int | None, seed: int) -> npt.NDArray[np.bool_] | None:
    """Which rows `DataFrame.sample` would draw of so many; None: all."""
    if limit is None or limit >= rows:
        return None
    keep = np.zeros(rows, bool)
    keep[pd.Series(keep).sample(limit, random_state=seed).index] = True
    return keep


def shown(parts: Iterator[pd.DataFrame], what: str, rows: int) -> Iterator[pd.DataFrame]:
    """The parts, with a bar on a terminal that tells how many rows have been worked through."""
    with tqdm(total=rows, desc=what, unit="pair", disable=None) as bar:
        for part in parts:
            yield part
            bar.update(len(part))
