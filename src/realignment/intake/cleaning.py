"""Raw rows → pairs. Every row becomes a pair or a rejected row with its reason: nothing disappears."""

import itertools
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from realignment.intake.columns import build_columns
from realignment.intake.flags import is_null
from realignment.intake.formats import PKU_COLUMNS, PKU_GRADES, PreferenceFormat, detect_format
from realignment.intake.rows import read_rows, truncate_prompt
from realignment.intake.screening import Columns, Problems, SeenRows, find_long_prompts, find_problems
from realignment.records import GRADE_COLUMNS, PAIR_COLUMNS, TRUTH_COLUMNS, DataError

REJECTED_COLUMNS = ("row", "field", "reason", "pair_id", "content")

_MAX_LISTED_ROWS = 10


@dataclass(frozen=True, slots=True)
class Intake:
    """The pairs and rejected rows of a table; ``len(pairs) + len(rejected_rows)`` is its number of rows.

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
        raw: Rows as `intake.readers.read_table` returns them; an index named `row` numbers them, else
            their position does.
        invalid: Whether rows that cannot be used are skipped, or stop the run.
        max_prompt_chars: Limit on the prompt, in characters.
        long_prompts: Drop longer ones (as rejected rows), keep their end, or stop.

    Returns:
        At least one pair, and every other row with its reason.

    Raises:
        DataError: Missing columns, no rows, no usable row, or a row that `invalid` or `long_prompts` makes
            fatal.
    """
    if raw.empty:
        columns = ", ".join(map(str, raw.columns)) or "none"
        raise DataError(
            f"The table of pairs has no rows. Found columns: {columns}. Expected: prompt, chosen, rejected."
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
    """Clean a batch of a table whose format is known, as `clean_pairs` does; it may hold no usable row.

    Args:
        raw: Rows of the table, with all of its columns.
        layout: The table's format.
        invalid: As in `clean_pairs`.
        max_prompt_chars: As in `clean_pairs`.
        long_prompts: As in `clean_pairs`.
        seen: The rows of earlier batches; pass the same object for every batch of a table.

    Returns:
        The batch's pairs and rejected rows.

    Raises:
        DataError: A row that `invalid` or `long_prompts` makes fatal.
    """
    numbers = raw.index.to_numpy() if raw.index.name == "row" else np.arange(1, len(raw) + 1)
    rows = list(read_rows(raw, layout))
    columns = build_columns(raw, rows, layout)
    problems = find_problems(columns, rows, seen)
    if invalid == "fail":
        advice = "Correct them, or set `invalid: skip` to set them aside."
        _raise_for_problems(problems, numbers, "cannot be used", advice)
    problems, truncated = _limit_prompts(columns, problems, numbers, max_prompt_chars, long_prompts)
    report = _build_report(raw, problems) | {"truncated": truncated, "format": layout.value}
    is_usable = [problem is None for problem in problems]
    return Intake(_build_pairs(columns, is_usable), _build_rejected(raw, numbers, problems), report)


def _build_report(raw: pd.DataFrame, problems: Problems) -> dict[str, Any]:
    usable = problems.count(None)
    reasons = Counter(f"{problem.field}: {problem.reason}" for problem in problems if problem is not None)
    return {
        "rows": len(raw),
        "pairs": usable,
        "rejected": len(raw) - usable,
        "reasons": dict(reasons.most_common()),
        "generated_ids": "pair_id" not in raw.columns,
        "ignored_columns": _list_ignored_columns(raw),
    }


def _list_ignored_columns(raw: pd.DataFrame) -> list[str]:
    used = {*PAIR_COLUMNS, *TRUTH_COLUMNS, *GRADE_COLUMNS, *PKU_COLUMNS}
    used |= {name.format(k) for name in PKU_GRADES for k in (0, 1)}
    used -= {"messages"}  # a column of ours, made of the prompt and never read
    return [str(name) for name in raw.columns if name not in used]


def _limit_prompts(
    columns: Columns, problems: Problems, numbers: np.ndarray, limit: int, long_prompts: str
) -> tuple[Problems, int]:
    """Apply the limit on prompts.

    Returns:
        The problems, with long prompts among them if they are dropped; and how many prompts were truncated.
    """
    too_long = find_long_prompts(columns, problems, limit)
    if long_prompts == "fail":
        advice = "Shorten them, raise the limit, or set `long_prompts` to drop or truncate."
        _raise_for_problems(too_long, numbers, f"have a prompt of more than {limit} characters", advice)
    if long_prompts == "truncate":
        return problems, _truncate_prompts(columns, too_long, limit)
    return [problem or long for problem, long in zip(problems, too_long, strict=True)], 0


def _truncate_prompts(columns: Columns, too_long: Problems, limit: int) -> int:
    """Shorten the long prompts in place, and return how many there are."""
    positions = [position for position, problem in enumerate(too_long) if problem is not None]
    prompts = columns["prompt"]
    messages = columns["messages"]
    for position in positions:
        text, remaining = truncate_prompt(prompts[position], messages[position], limit)
        prompts[position] = text
        messages[position] = remaining
    return len(positions)


def _raise_for_problems(problems: Problems, numbers: np.ndarray, what: str, advice: str) -> None:
    lines = [
        f"- row {number}, field {problem.field}: {problem.reason}"
        for number, problem in zip(numbers, problems, strict=True)
        if problem is not None
    ]
    if not lines:
        return
    message = [f"{len(lines)} of {len(numbers)} rows {what}. {advice}", *lines[:_MAX_LISTED_ROWS]]
    if len(lines) > _MAX_LISTED_ROWS:
        message.append(f"- and {len(lines) - _MAX_LISTED_ROWS} more")
    raise DataError("\n".join(message))


def _build_pairs(columns: Columns, is_usable: list[bool]) -> pd.DataFrame:
    optional = [name for name in (*TRUTH_COLUMNS, *GRADE_COLUMNS) if name in columns]
    series = {}
    for name in (*PAIR_COLUMNS, *optional):
        cells = list(itertools.compress(columns[name], is_usable))
        # These types survive Parquet unchanged, in columns of nothing but null too.
        if name in TRUTH_COLUMNS:
            dtype = "boolean"
        elif name.endswith("_severity"):
            dtype = "Int64"
        else:
            dtype = "str"
        series[name] = pd.Series(cells, dtype=dtype)
    return pd.DataFrame(series)


def _build_rejected(raw: pd.DataFrame, numbers: np.ndarray, problems: Problems) -> pd.DataFrame:
    positions = [position for position, problem in enumerate(problems) if problem is not None]
    lines = []
    for position, cells in zip(positions, raw.iloc[positions].to_dict("records"), strict=True):
        problem = problems[position]
        assert problem is not None
        content = _escape_surrogates(json.dumps(cells, default=str, ensure_ascii=False)[:200])
        pair_id = cells.get("pair_id")
        pair_id = None if is_null(pair_id) else _escape_surrogates(str(pair_id))
        lines.append((int(numbers[position]), problem.field, problem.reason, pair_id, content))
    table = pd.DataFrame(lines, columns=list(REJECTED_COLUMNS))
    return table.astype({"row": "int64", "field": "str", "reason": "str", "pair_id": "str", "content": "str"})


def _escape_surrogates(text: str) -> str:
    """Return the text with lone surrogates as escape sequences, so that a file can hold it."""
    return text.encode("utf-8", "backslashreplace").decode()
