"""Which rows of a table of pairs cannot be used, and why: the first problem of every row."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from realignment.intake.flags import is_flag, is_null, read_flag
from realignment.intake.rows import Problem
from realignment.intake.seen_keys import SeenKeys, hash_keys
from realignment.intake.unicode import has_lone_surrogate
from realignment.records import TRUTH_COLUMNS

Columns = dict[str, list[Any]]
"""The canonical columns as plain lists: comprehensions over them are faster than any object Series."""

Problems = list[Problem | None]
"""One entry per row; None where the row can be used."""


@dataclass(frozen=True, slots=True)
class SeenRows:
    """The contents and ids of the rows in earlier batches of a table."""

    contents: SeenKeys = field(default_factory=SeenKeys)
    ids: SeenKeys = field(default_factory=SeenKeys)


REQUIRED_TEXTS = ("prompt", "chosen", "rejected", "pair_id")
OPTIONAL_TEXTS = ("domain", "correction")
CONTENT = ("prompt", "chosen", "rejected", "messages")
"""The columns that make two rows the same."""


def find_problems(columns: Columns, rows: list[Any], seen: SeenRows | None = None) -> Problems:
    """Find the first problem of every row.

    Args:
        columns: Canonical columns. Truth is rewritten to bool or None, and blank optional texts to None.
        rows: What the format made of each row: a `Problem`, or its cells.
        seen: Rows of earlier batches, if this is a batch of a table; the usable rows of this one are added.

    Returns:
        One entry per row; None where the row can be used.
    """
    seen = seen or SeenRows()
    problems: Problems = [row if isinstance(row, Problem) else None for row in rows]
    for name in REQUIRED_TEXTS:
        _check_cells(problems, columns[name], _check_text, name)
    for name in OPTIONAL_TEXTS:
        columns[name] = [_blank_to_none(cell) for cell in columns[name]]
        _check_cells(problems, columns[name], _check_optional_text, name)
    # Messages are made of the prompt, and it is there that a user finds what is wrong with them.
    _check_cells(problems, columns["messages"], _check_optional_text, "prompt")
    for name in TRUTH_COLUMNS:
        if name in columns:
            _check_cells(problems, columns[name], _check_truth, name)
            columns[name] = [read_flag(cell) for cell in columns[name]]
    _check_responses_differ(problems, columns)
    # Repeats come last: a row that cannot be used anyway does not make a later one a repeat.
    contents = list(zip(*(columns[name] for name in CONTENT), strict=True))
    repeated_content = Problem("prompt", "the same prompt, chosen and rejected as an earlier row")
    _check_repeats(problems, contents, repeated_content, seen.contents)
    repeated_id = Problem("pair_id", "the same pair_id as an earlier row")
    _check_repeats(problems, columns["pair_id"], repeated_id, seen.ids)
    return problems


def find_long_prompts(columns: Columns, problems: Problems, limit: int) -> Problems:
    """Find the usable rows whose prompt is too long.

    Args:
        columns: Canonical columns.
        problems: From `find_problems`; rows with a problem are left out.
        limit: Characters that a prompt may have.

    Returns:
        One entry per row; None where the prompt is short enough, or the row cannot be used anyway.
    """
    too_long = Problem("prompt", f"longer than {limit} characters")
    return [
        too_long if problem is None and len(prompt) > limit else None
        for prompt, problem in zip(columns["prompt"], problems, strict=True)
    ]


def _check_cells(
    problems: Problems, cells: list[Any], check: Callable[[Any], str | None], field: str
) -> None:
    """Record what is wrong with the cells of one column, for rows that have no problem yet."""
    for row, cell in enumerate(cells):
        if problems[row] is None:
            reason = check(cell)
            if reason is not None:
                problems[row] = Problem(field, reason)


def _check_responses_differ(problems: Problems, columns: Columns) -> None:
    for row, (chosen, rejected) in enumerate(zip(columns["chosen"], columns["rejected"], strict=True)):
        if problems[row] is None and chosen.strip() == rejected.strip():
            problems[row] = Problem("rejected", "equal to chosen")


def _check_repeats(problems: Problems, keys: list[Any], problem: Problem, earlier: SeenKeys) -> None:
    """Record the problem for rows whose key an earlier usable row has, in this batch or in one before."""
    usable = [row for row, other_problem in enumerate(problems) if other_problem is None]
    hashes = hash_keys(keys[row] for row in usable)
    batch_keys: set[Hashable] = set()
    for row, is_in_earlier_batch in zip(usable, earlier.contains(hashes), strict=True):
        if is_in_earlier_batch or keys[row] in batch_keys:
            problems[row] = problem
        batch_keys.add(keys[row])
    earlier.add(hashes)


def _blank_to_none(cell: Any) -> Any:
    return None if isinstance(cell, str) and not cell.strip() else cell


def _check_optional_text(cell: Any) -> str | None:
    return None if cell is None else _check_text(cell)


def _check_text(cell: Any) -> str | None:
    """Return what is wrong with a cell that should be a text; None where nothing is."""
    if isinstance(cell, str):
        if not cell or cell.isspace():
            return "empty text"
        if not cell.isascii() and has_lone_surrogate(cell):
            return "half of a surrogate pair: not valid Unicode"
        return None
    return "is null" if is_null(cell) else f"expected text, found {type(cell).__name__}"


def _check_truth(cell: Any) -> str | None:
    """Return what is wrong with a cell that should be true, false or null; None where nothing is."""
    if is_null(cell) or is_flag(cell):
        return None
    return f"expected true, false or null, found {cell!r:.40}"
