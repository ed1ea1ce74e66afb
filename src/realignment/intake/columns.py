"""Raw rows → canonical columns: the cells of every pair under our names, not yet checked."""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from realignment.intake.flags import is_null
from realignment.intake.formats import PKU_GRADES, PreferenceFormat
from realignment.intake.screening import CONTENT, OPTIONAL_TEXTS, Columns
from realignment.policy.severity import read_categories, read_severity
from realignment.records import GRADE_COLUMNS, TRUTH_COLUMNS

# Any of these columns means that the table gives truth.
_TRUTH_SOURCES = (*TRUTH_COLUMNS, "is_response_0_safe", "is_response_1_safe")


def build_columns(raw: pd.DataFrame, rows: list[Any], layout: PreferenceFormat) -> Columns:
    """Collect the cells of a table of pairs under their canonical names.

    Args:
        raw: The table as it was read.
        rows: What the format made of each row, from `read_rows`.
        layout: The table's format.

    Returns:
        Lists with one cell per row; None where a row has none. Truth and grades are there only where the
        table has them.
    """
    columns: Columns = {name: _collect(rows, name) for name in CONTENT}
    for name in OPTIONAL_TEXTS:
        columns[name] = _nan_to_none(raw[name]) if name in raw.columns else [None] * len(raw)
    if "pair_id" in raw.columns:
        ids = _nan_to_none(raw["pair_id"])
        columns["pair_id"] = [str(cell) if _is_whole_number(cell) else cell for cell in ids]
    else:
        contents = zip(*(columns[name] for name in CONTENT), strict=True)
        columns["pair_id"] = [_derive_id(*cells) for cells in contents]
    if any(name in raw.columns for name in _TRUTH_SOURCES):
        for name in TRUTH_COLUMNS:
            cells = raw[name] if name in raw.columns else _collect(rows, name)
            columns[name] = _nan_to_none(cells)
    return columns | _read_grades(raw, rows, layout)


def _read_grades(raw: pd.DataFrame, rows: list[Any], layout: PreferenceFormat) -> Columns:
    """Return categories and severities of harm; empty where the table has no column for them."""
    has_own_columns = any(name in raw.columns for name in GRADE_COLUMNS)
    pku_columns = {name.format(k) for name in PKU_GRADES[1:] for k in (0, 1)}
    has_pku_columns = layout is PreferenceFormat.PKU and not pku_columns.isdisjoint(raw.columns)
    if not has_own_columns and not has_pku_columns:
        return {}
    readers = {"categories": read_categories, "severity": read_severity}
    grades: Columns = {}
    for name in GRADE_COLUMNS:
        cells = raw[name] if name in raw.columns else _collect(rows, name)
        read = readers[name.partition("_")[2]]
        grades[name] = [read(cell) for cell in cells]
    return grades


def _collect(rows: list[Any], name: str) -> list[Any]:
    """Return one field of every row; None for rows that do not fit the format."""
    return [getattr(row, name, None) for row in rows]


def _derive_id(*texts: Any) -> str:
    # With its length before it, no text can run into the next. Lone surrogates must not fail here:
    # `screening` rejects them with a reason.
    content = "".join(f"{len(str(text))}:{text}" for text in texts)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _is_whole_number(cell: Any) -> bool:
    return isinstance(cell, (int, np.integer)) and not isinstance(cell, bool)


def _nan_to_none(cells: Iterable[Any]) -> list[Any]:
    return [None if is_null(cell) else cell for cell in cells]
