"""Cells as they were read → tables of Python objects, with the row numbers of the source."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from realignment.intake.unicode import require_unicode
from realignment.records import DataError


def rows_to_frame(rows: list[dict[str, Any]], numbers: Iterable[int]) -> pd.DataFrame:
    """Build a table from rows.

    Args:
        rows: One dictionary per row; a key that a row lacks is null.
        numbers: The number of each row.

    Returns:
        Columns of dtype object, in the order in which they appear; the index `row` has the numbers.

    Raises:
        DataError: A key is not valid Unicode.
    """
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    require_unicode(names)
    table = columns_to_frame({name: [row.get(name) for row in rows] for name in names}, len(rows))
    return table.set_axis(pd.Index(np.fromiter(numbers, dtype=np.int64), name="row"), axis=0)


def columns_to_frame(columns: dict[str, list[Any]], length: int, start: int = 1) -> pd.DataFrame:
    """Build a table from columns.

    Args:
        columns: The cells of each column.
        length: Number of rows, which a table without columns has too.
        start: The number of the first row.

    Returns:
        Columns of dtype object; the index `row` has the numbers.
    """
    # As objects: pandas must neither turn flags with gaps into floats nor fail at a lone surrogate.
    index = pd.RangeIndex(start, start + length, name="row")
    return pd.DataFrame(
        {name: pd.Series(cells, index=index, dtype=object) for name, cells in columns.items()}, index=index
    )


def require_unique(names: list[str], path: Path) -> None:
    """Make sure that no two columns have the same name.

    Args:
        names: The names of the columns.
        path: The file, for the message of an error.

    Raises:
        DataError: A name repeats, and it is unclear which of the columns is meant.
    """
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{path}: column names must be unique, repeated: {', '.join(map(repr, repeated))}.")
