"""Which rows of a table of pairs cannot be used, and why: the first problem of every row."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from realignment.intake.flags import is_flag, is_null, read_flag
from realignment.intake.formats import Problem
from realignment.intake.seen_keys import Seen, hash_keys
from realignment.intake.unicode import has_lone_surrogate
from realignment.records import TRUTH_COLUMNS

Columns = dict[str, list[Any]]
"""The canonical columns as plain lists: comprehensions over them are faster than any object Series."""

Problems = list[Problem | None]
"""One entry per row; None where the row can be used."""


@dataclass(frozen=True, slots=True)
class SeenRows:
    """Contents and ids of the rows in earlier parts of a table."""

    contents: Seen = field(default_factory=Seen)
    ids: Seen = field(default_factory=Seen)


OPTIONAL_TEXTS = ("domain", "correction")


def find_problems(columns: Columns, readings: list[Any], seen: SeenRows | None = None) -> Problems:
    """The first problem of every row; rewrites truth to bool or None, and blank optional texts to None.

    Args:
        columns: Canonical columns.
        readings: What the format made of each row.
        seen: Rows of earlier parts, if this is a part of a table; the rows of this one join them.
    """
    seen = seen or SeenRows()
    problems: Problems = [reading if isinstance(reading, Problem) else None for reading in readings]
    for name in ("prompt", "chosen", "rejected", "pair_id"):
        _note(problems, columns[name], _check_text, name)
    for name in OPTIONAL_TEXTS:
        columns[name] = [
            None if isinstance(cell, str) and not cell.strip() else cell for cell in columns[name]
        ]
        _note(problems, columns[name], lambda cell: None if cell is None else _check_text(cell), name)
    _note(problems, columns["messages"], lambda cell: None if cell is None else _check_text(cell), "prompt")
    for name in TRUTH_COLUMNS:
        if name in columns:
            _note(problems, columns[name], _check_truth, name)
            columns[name] = [read_flag(cell) for cell in columns[name]]
    for row, (chosen, rejected) in enumerate(zip(columns["chosen"], columns["rejected"], strict=True)):
        if problems[row] is None and chosen.strip() == rejected.strip():
            problems[row] = Problem("rejected", "equal to chosen")
    content = list(
        zip(*(columns[name] for name in ("prompt", "chosen", "rejected", "messages")), strict=True)
    )
    _note_repeated(
        problems,
        content,
        Problem("prompt", "the same prompt, chosen and rejected as an earlier row"),
        seen.contents,
    )
    _note_repeated(
        problems, columns["pair_id"], Problem("pair_id", "the same pair_id as an earlier row"), seen.ids
    )
    return problems


def find_long_prompts(columns: Columns, problems: Problems, limit: int) -> Problems:
    """The usable rows whose prompt has more than `limit` characters."""
    lengths = [
        len(prompt) if problem is None else 0
        for prompt, problem in zip(columns["prompt"], problems, strict=True)
    ]
    reason = f"longer than {limit} characters"
    return [Problem("prompt", reason) if length > limit else None for length in lengths]


def _note(problems: Problems, cells: list[Any], check: Callable[[Any], str | None], field: str) -> None:
    for row, cell in enumerate(cells):
        if problems[row] is None and (reason := check(cell)) is not None:
            problems[row] = Problem(field, reason)


def _note_repeated(problems: Problems, keys: list[Any], problem: Problem, earlier: Seen) -> None:
    usable = [row for row, found in enumerate(problems) if found is None]
    here: set[Hashable] = set()
    hashes = hash_keys(keys[row] for row in usable)
    for row, known in zip(usable, earlier.know(hashes), strict=True):
        if known or keys[row] in here:
            problems[row] = problem
        here.add(keys[row])
    earlier.add(hashes)


def _check_text(cell: Any) -> str | None:
    if isinstance(cell, str):
        if not cell or cell.isspace():
            return "empty text"
        if not cell.isascii() and has_lone_surrogate(cell):
            return "half of a surrogate pair: not valid Unicode"
        return None
    return "is null" if is_null(cell) else f"expected text, found {type(cell).__name__}"


def _check_truth(cell: Any) -> str | None:
    if is_null(cell) or is_flag(cell):
        return None
    return f"expected true, false or null, found {cell!r:.40}"
