"""Read raw rows, clean and grade the pairs, part by part."""

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
from realignment.policy.severity import check_categories, grade_batch, list_categories
from realignment.records import Counts, DataError
from realignment.table_files import TableFile, TableWriter, WorkFolder

_SUMMED_COUNTS = ("rows", "pairs", "rejected", "truncated")


@dataclass(frozen=True, slots=True)
class CleanPairs:
    """The result of intake, as `intake.Intake`, with its tables on disk and its pairs graded."""

    pairs: TableFile
    rejected_rows: TableFile
    report: dict[str, Any]


def read_pairs(
    raw: Shards, policy: Policy, parameters: IntakeParameters, *, folder: WorkFolder, size: int, seed: int
) -> CleanPairs:
    """Clean and grade the pairs, as the stage `judging` does.

    Args:
        raw: The table; its format is detected from its columns and its first part.
        policy: Its tiers turn grades into verdicts.
        parameters: As in the stage; the draw of `limit` is the same.
        folder: Folder of the new tables.
        size: Rows of a part.
        seed: Seed of the draw.

    Returns:
        Pairs, rejected rows and the intake report.

    Raises:
        DataError: As `intake.clean_pairs` and `policy.severity.grade_pairs`, before anything is judged.
    """
    settings = parameters.model_dump(exclude={"limit"})
    keep = _draw(len(raw), parameters.limit, seed)
    layout = None
    seen = SeenRows()
    categories: set[str] = set()
    counts: Counts = Counter()
    report: dict[str, Any] = {}
    with TableWriter(folder, "pairs") as pairs, TableWriter(folder, "rejected_rows") as rejected:
        for part in show_progress(raw.read(size, keep), "Reading the pairs", len(raw)):
            layout = layout or detect_format(part)
            clean = intake.clean_rows(part, layout, **settings, seen=seen)
            categories |= list_categories(clean.pairs) if policy.tiers else set()
            pairs.append(grade_batch(clean.pairs, policy))
            rejected.append(clean.rejected_rows)
            report = clean.report
            # The report of a part counts its rows; sums over all parts replace these counts below.
            counts.update({(name,): report[name] for name in _SUMMED_COUNTS})
            counts.update({("reason", reason): n for reason, n in report["reasons"].items()})
        if not counts["pairs",]:
            raise DataError(f"None of the {counts['rejected',]} rows can be used: {_reasons(counts)}.")
        check_categories(categories, policy)
        report |= {name: counts[name,] for name in _SUMMED_COUNTS}
        report["reasons"] = _reasons(counts)
        if len(raw.shards) > 1:
            report["files"] = raw.list_files()
        return CleanPairs(pairs.finish(), rejected.finish(), report)


def _reasons(counts: Counts) -> dict[str, int]:
    return {key[1]: count for key, count in counts.most_common() if key[0] == "reason"}


def _draw(rows: int, limit: int | None, seed: int) -> npt.NDArray[np.bool_] | None:
    """Return whether each row is among those that `DataFrame.sample` would draw; None: all are."""
    if limit is None or limit >= rows:
        return None
    keep = np.zeros(rows, bool)
    keep[pd.Series(keep).sample(limit, random_state=seed).index] = True
    return keep


def show_progress(parts: Iterator[pd.DataFrame], description: str, rows: int) -> Iterator[pd.DataFrame]:
    """Yield the parts, with a progress bar of the rows on a terminal."""
    with tqdm(total=rows, desc=description, unit="pair", disable=None) as bar:
        for part in parts:
            yield part
            bar.update(len(part))
