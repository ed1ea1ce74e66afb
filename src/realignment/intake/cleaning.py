"""Raw rows → pairs. Every row becomes a pair or a rejected row with its reason: nothing disappears."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from realignment.intake.flags import is_null
from realignment.intake.formats import PKU_GRADES, PreferenceFormat, cut_prompt, detect_format, read_rows
from realignment.intake.screening import (
    OPTIONAL_TEXTS,
    Columns,
    Problems,
    SeenRows,
    find_long_prompts,
    find_problems,
)
from realignment.policy.severity import read_categories, read_severity
from realignment.records import GRADE_COLUMNS, PAIR_COLUMNS, TRUTH_COLUMNS, DataError

REJECTED_COLUMNS = ("row", "field", "reason", "pair_id", "content")


_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Intake:
    """What became of a table; ``len(pairs) + len(rejected_rows)`` is its number of rows.

    Attributes:
        pairs: `records.PAIR_COLUMNS`, and `records.TRUTH_COLUMNS` (boolean, null allowed) where the table
            gives truth.
        rejected_rows: `REJECTED_COLUMNS`; `row` is the line or position in the source.
        report: rows, pairs, rejected, truncated, format, reasons (field: reason → count), generated_ids,
            ignored_columns.
    """

    pairs: pd.DataFrame
    rejected_rows: pd.DataFrame
    report: dict[str, Any]


def clean_pairs(
    raw: pd.DataFrame,
    *,
    invalid: Literal["skip", "fail"],
    max_prompt_chars: int,
    long_prompts: Literal["drop", "truncate", "fail"],
) -> Intake:
    """Read a table of preference pairs, in whichever format it is, and set aside what cannot be used.

    Args:
        raw: Rows as `intake.readers.read_table` gives them; an index named `row` numbers them, else
            their position does.
        invalid: Whether rows that cannot be used are skipped, or the first of them stop the run.
        max_prompt_chars: Limit on the prompt, in characters.
        long_prompts: Drop longer ones (as rejected rows), keep their end, or stop.

    Raises:
        DataError: Missing columns, no rows, no usable row, or a row that `invalid` or `long_prompts` makes
            fatal.
    """
    if raw.empty:
        found = ", ".join(map(str, raw.columns)) or "none"
        raise DataError(
            f"The table of pairs has no rows. Found columns: {found}. Expected: prompt, chosen, rejected."
        )
    layout = detect_format(raw)
    result = clean_rows(
        raw, layout, invalid=invalid, max_prompt_chars=max_prompt_chars, long_prompts=long_prompts
    )
    if result.pairs.empty:
        raise DataError(
            f"None of the {len(raw)} rows can be used: {result.report['reasons']}. "
            f"Is {layout.value} its format?"
        )
    return result


def clean_rows(
    raw: pd.DataFrame,
    layout: PreferenceFormat,
    *,
    invalid: Literal["skip", "fail"],
    max_prompt_chars: int,
    long_prompts: Literal["drop", "truncate", "fail"],
    seen: SeenRows | None = None,
) -> Intake:
    """`clean_pairs` for a part of a table whose format is known; it may hold no usable row.

    Of a table in parts every part has all of its columns, and `seen` goes from one to the next.
    """
    rows = raw.index.to_numpy() if raw.index.name == "row" else np.arange(1, len(raw) + 1)
    readings = list(read_rows(raw, layout))
    pairs = _to_columns(raw, readings, layout)
    problems = find_problems(pairs, readings, seen)
    if invalid == "fail":
        _stop(problems, rows, "cannot be used", "Mend them, or set `invalid: skip` to set them aside.")
    problems, truncated = _limit_prompts(pairs, problems, rows, max_prompt_chars, long_prompts)
    kept = [problem is None for problem in problems]
    report = _report(raw, problems) | {"truncated": truncated, "format": layout.value}
    return Intake(_to_pairs(pairs, kept), _to_rejected(raw, rows, problems), report)


def _report(raw: pd.DataFrame, problems: Problems) -> dict[str, Any]:
    usable = problems.count(None)
    return {
        "rows": len(raw),
        "pairs": usable,
        "rejected": len(raw) - usable,
        "reasons": _count(problems),
        "generated_ids": "pair_id" not in raw.columns,
        "ignored_columns": _list_ignored(raw),
    }


def _limit_prompts(
    pairs: Columns, problems: Problems, rows: np.ndarray, limit: int, long_prompts: str
) -> tuple[Problems, int]:
    """The problems, with long prompts among them if they are dropped; and how many prompts were truncated."""
    too_long = find_long_prompts(pairs, problems, limit)
    if long_prompts == "fail":
        advice = "Shorten them, raise the limit, or set `long_prompts` to drop or truncate."
        _stop(too_long, rows, f"have a prompt of more than {limit} characters", advice)
    if long_prompts == "truncate":
        return problems, _truncate(pairs, too_long, limit)
    return [one or other for one, other in zip(problems, too_long, strict=True)], 0


def _to_columns(raw: pd.DataFrame, readings: Iterable[Any], layout: PreferenceFormat) -> Columns:
    blank = [None] * len(raw)
    columns: Columns = {
        name: [getattr(reading, name, None) for reading in readings]
        for name in ("prompt", "chosen", "rejected", "messages")
    }
    for name in ("pair_id", *OPTIONAL_TEXTS):
        columns[name] = _without_nan(raw[name]) if name in raw.columns else list(blank)
    if "pair_id" in raw.columns:
        columns["pair_id"] = [str(cell) if _is_whole(cell) else cell for cell in columns["pair_id"]]
    else:
        columns["pair_id"] = [
            _derive_id(*cells)
            for cells in zip(
                *(columns[name] for name in ("prompt", "chosen", "rejected", "messages")), strict=True
            )
        ]
    given_by_format = [[getattr(reading, name, None) for reading in readings] for name in TRUTH_COLUMNS]
    if any(name in raw.columns for name in (*TRUTH_COLUMNS, "is_response_0_safe", "is_response_1_safe")):
        for name, cells in zip(TRUTH_COLUMNS, given_by_format, strict=True):
            columns[name] = _without_nan(raw[name] if name in raw.columns else cells)
    return columns | _read_grades(raw, readings, layout)


def _read_grades(raw: pd.DataFrame, readings: Iterable[Any], layout: PreferenceFormat) -> Columns:
    """Categories and severities of harm, where the table has columns for them."""
    given = {name: raw[name] for name in GRADE_COLUMNS if name in raw.columns}
    graded = {name.format(k) for name in PKU_GRADES[1:] for k in (0, 1)} & set(raw.columns)
    if not given and not (graded and layout is PreferenceFormat.PKU):
        return {}
    by_format = {name: [getattr(reading, name, None) for reading in readings] for name in GRADE_COLUMNS}
    read = {"categories": read_categories, "severity": read_severity}
    return {
        name: [read[name.partition("_")[2]](cell) for cell in given.get(name, by_format[name])]
        for name in GRADE_COLUMNS
    }


def _derive_id(*texts: Any) -> str:
    # Parts with their lengths cannot run into each other; lone surrogates are rejected later, not here.
    content = "".join(f"{len(str(text))}:{text}" for text in texts)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _is_whole(cell: Any) -> bool:
    return isinstance(cell, (int, np.integer)) and not isinstance(cell, bool)


def _without_nan(cells: Iterable[Any]) -> list[Any]:
    return [None if is_null(cell) else cell for cell in cells]


def _truncate(columns: Columns, too_long: Problems, limit: int) -> int:
    positions = [row for row, problem in enumerate(too_long) if problem is not None]
    for row in positions:
        cut = cut_prompt(columns["prompt"][row], columns["messages"][row], limit)
        columns["prompt"][row], columns["messages"][row] = cut
    return len(positions)


def _stop(problems: Problems, rows: np.ndarray, what: str, advice: str) -> None:
    found = [(row, problem) for row, problem in zip(rows, problems, strict=True) if problem is not None]
    if found:
        lines = [f"- row {row}, field {problem.field}: {problem.reason}" for row, problem in found[:_SHOWN]]
        rest = [f"- and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
        raise DataError("\n".join([f"{len(found)} of {len(rows)} rows {what}. {advice}", *lines, *rest]))


def _count(problems: Problems) -> dict[str, int]:
    return dict(
        Counter(
            f"{problem.field}: {problem.reason}" for problem in problems if problem is not None
        ).most_common()
    )


def _list_ignored(raw: pd.DataFrame) -> list[str]:
    used = {*PAIR_COLUMNS, *TRUTH_COLUMNS, *GRADE_COLUMNS, "response_0", "response_1", "better_response_id"}
    used |= {name.format(k) for name in PKU_GRADES for k in (0, 1)}
    return [str(name) for name in raw.columns if name not in used - {"messages"}]


def _to_pairs(columns: Columns, kept: list[bool]) -> pd.DataFrame:
    # `str` and `boolean` survive Parquet unchanged, columns of nothing but null included.
    names = [*PAIR_COLUMNS, *(name for name in (*TRUTH_COLUMNS, *GRADE_COLUMNS) if name in columns)]
    cells = {name: [cell for cell, keep in zip(columns[name], kept, strict=True) if keep] for name in names}
    kinds = {name: "boolean" if name in TRUTH_COLUMNS else "str" for name in names}
    kinds |= {name: "Int64" for name in names if name.endswith("_severity")}
    return pd.DataFrame({name: pd.Series(cells[name], dtype=kinds[name]) for name in names})


def _to_rejected(raw: pd.DataFrame, rows: np.ndarray, problems: Problems) -> pd.DataFrame:
    positions = [position for position, problem in enumerate(problems) if problem is not None]
    lines = []
    for position, cells in zip(positions, raw.iloc[positions].to_dict("records"), strict=True):
        problem, given = problems[position], cells.get("pair_id")
        assert problem is not None
        content = (
            json.dumps(cells, default=str, ensure_ascii=False)[:200]
            .encode("utf-8", "backslashreplace")
            .decode()
        )
        pair_id = given.encode("utf-8", "backslashreplace").decode() if isinstance(given, str) else given
        pair_id = None if is_null(pair_id) else str(pair_id)
        lines.append((int(rows[position]), problem.field, problem.reason, pair_id, content))
    table = pd.DataFrame(lines, columns=list(REJECTED_COLUMNS))
    return table.astype({"row": "int64", "field": "str", "reason": "str", "pair_id": "str", "content": "str"})
