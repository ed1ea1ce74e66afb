"""The one reader of truth values: as Python objects all words are true, `False` and `no` among them."""

from typing import Any

import numpy as np
import pandas as pd

from realignment.records import DataError

_FLAGS = {
    True: True,
    False: False,
    "true": True,
    "false": False,
    "1": True,
    "0": False,
}  # True == 1 == 1.0 as a key

VERDICT_WORDS: dict[str, bool | None] = {"complies": True, "violates": False, "unsure": None}
"""What people write for a verdict."""

_SHOWN = 10


def is_null(cell: Any) -> bool:
    """None, NaN or pandas' NA."""
    return cell is None or cell is pd.NA or (isinstance(cell, float) and cell != cell)


def is_flag(cell: Any) -> bool:
    """Whether a cell says true or false, as a flag, a number or a word."""
    return isinstance(cell, (str, int, float, np.generic)) and _key(cell) in _FLAGS


def read_flag(cell: Any) -> bool | None:
    """What a cell says; None where it is no flag (`is_flag`)."""
    return _FLAGS[_key(cell)] if is_flag(cell) else None


def verdict_column(table: pd.DataFrame, column: str = "complies") -> pd.Series:
    """A column of verdicts as `boolean`, null where none was given.

    Args:
        table: From `read_table`, whose rows have their numbers in the file; or any other.
        column: Cells are flags, numbers (1, 0), null, or words: true, false, complies, violates, unsure.

    Raises:
        DataError: Another cell is among them; the message names file and row of the first ten.
    """
    cells = table[column]
    if pd.api.types.is_bool_dtype(cells.dtype):
        return cells.astype("boolean")
    if wrong := [place for place, cell in enumerate(cells) if not _is_verdict(cell)]:
        numbers = table.index if table.index.name == "row" else range(1, len(table) + 1)
        lines = [f"- row {numbers[place]}: {cells.iloc[place]!r:.60}" for place in wrong[:_SHOWN]]
        rest = [f"- and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
        raise DataError(
            f"{table.attrs.get('source', 'The table')}: {len(wrong)} cells of `{column}` are no verdict. "
            f"Expected true or false, 1 or 0, {', '.join(VERDICT_WORDS)}, or nothing. Mend these rows:\n"
            + "\n".join([*lines, *rest])
        )
    read = [VERDICT_WORDS.get(_key(cell)) if isinstance(cell, str) else None for cell in cells]
    known = [read_flag(cell) if word is None else word for cell, word in zip(cells, read, strict=True)]
    return pd.Series(pd.array(known, dtype="boolean"), index=cells.index)


def _is_verdict(cell: Any) -> bool:
    return is_null(cell) or is_flag(cell) or (isinstance(cell, str) and _key(cell) in VERDICT_WORDS)


def _key(cell: Any) -> Any:
    return cell.strip().lower() if isinstance(cell, str) else cell
