"""The one reader of truth values. As Python objects all words are true, even `False` and `no`."""

from typing import Any

import numpy as np
import pandas as pd

from realignment.records import DataError

# 1 and 1.0 need no entries: they equal True as keys, and so do numpy's.
_FLAGS = {
    True: True,
    False: False,
    "true": True,
    "false": False,
    "1": True,
    "0": False,
}

VERDICT_WORDS: dict[str, bool | None] = {"complies": True, "violates": False, "unsure": None}
"""The words that people write for a verdict."""

_MAX_LISTED_ROWS = 10


def is_null(cell: Any) -> bool:
    """Return whether a cell is None, NaN or pandas' NA."""
    return cell is None or cell is pd.NA or (isinstance(cell, float) and cell != cell)


def is_flag(cell: Any) -> bool:
    """Return whether a cell says true or false, as a flag, a number or a word."""
    return isinstance(cell, (str, int, float, np.generic)) and _normalize(cell) in _FLAGS


def read_flag(cell: Any) -> bool | None:
    """Return the truth value of a cell; None where it is no flag (`is_flag`)."""
    return _FLAGS[_normalize(cell)] if is_flag(cell) else None


def read_verdict_column(table: pd.DataFrame, column: str = "complies") -> pd.Series:
    """Read a column of verdicts, of whatever spelling.

    Args:
        table: From `read_table`, whose rows have their numbers in the file; or any other.
        column: Cells are flags, numbers (1, 0), null, or words: true, false, complies, violates, unsure.

    Returns:
        Verdicts of dtype `boolean`, null where none was given or the word is unsure.

    Raises:
        DataError: Another cell is among them; the message names file and row of the first ten.
    """
    cells = table[column]
    if pd.api.types.is_bool_dtype(cells.dtype):
        return cells.astype("boolean")
    wrong_positions = [position for position, cell in enumerate(cells) if not _is_verdict(cell)]
    if wrong_positions:
        raise _describe_wrong_cells(table, column, wrong_positions)
    verdicts = [_read_verdict(cell) for cell in cells]
    return pd.Series(pd.array(verdicts, dtype="boolean"), index=cells.index)


def _describe_wrong_cells(table: pd.DataFrame, column: str, positions: list[int]) -> DataError:
    numbers = table.index if table.index.name == "row" else range(1, len(table) + 1)
    lines = [
        f"- row {numbers[position]}: {table[column].iloc[position]!r:.60}"
        for position in positions[:_MAX_LISTED_ROWS]
    ]
    if len(positions) > _MAX_LISTED_ROWS:
        lines.append(f"- and {len(positions) - _MAX_LISTED_ROWS} more")
    return DataError(
        f"{table.attrs.get('source', 'The table')}: {len(positions)} cells of `{column}` are no verdict. "
        f"Expected true or false, 1 or 0, {', '.join(VERDICT_WORDS)}, or nothing. Correct these rows:\n"
        + "\n".join(lines)
    )


def _is_verdict(cell: Any) -> bool:
    return is_null(cell) or is_flag(cell) or (isinstance(cell, str) and _normalize(cell) in VERDICT_WORDS)


def _read_verdict(cell: Any) -> bool | None:
    """Read a cell that `_is_verdict`; null and unsure are None."""
    word = VERDICT_WORDS.get(_normalize(cell)) if isinstance(cell, str) else None
    return read_flag(cell) if word is None else word


def _normalize(cell: Any) -> Any:
    return cell.strip().lower() if isinstance(cell, str) else cell
