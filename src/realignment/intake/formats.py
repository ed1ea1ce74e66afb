"""The preference formats that can be read, and which of them a table has."""

import difflib
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd

from realignment.records import DataError


class PreferenceFormat(StrEnum):
    """The format of a table; a row in another format is rejected."""

    STANDARD = "TRL standard (prompt, chosen, rejected: texts)"
    CONVERSATIONAL = "TRL conversational (prompt, chosen, rejected: lists of messages)"
    IMPLICIT = "TRL implicit prompt (chosen, rejected: whole conversations)"
    PKU = "PKU-SafeRLHF (prompt, response_0, response_1, better_response_id)"


PKU_COLUMNS = ("prompt", "response_0", "response_1", "better_response_id")
PKU_GRADES = ("is_response_{}_safe", "response_{}_harm_category", "response_{}_severity_level")
"""Columns with the grades of response 0 and 1: verdict, categories of harm, severity."""
TRL_COLUMNS = ("prompt", "chosen", "rejected")


def detect_format(raw: pd.DataFrame) -> PreferenceFormat:
    """Return the format of a table, by its columns and, where these leave a choice, by most of its cells.

    Args:
        raw: Rows as `read_table` returns them.

    Returns:
        One format for all rows.

    Raises:
        DataError: Columns are missing, or plain texts come without a prompt.
    """
    columns = set(raw.columns)
    if not {"chosen", "rejected"} <= columns and {"response_0", "response_1", "better_response_id"} & columns:
        _require_columns(raw, PKU_COLUMNS)
        return PreferenceFormat.PKU
    _require_columns(raw, TRL_COLUMNS if "prompt" in columns else TRL_COLUMNS[1:])
    is_conversational = _are_mostly_lists([*raw["chosen"], *raw["rejected"]])
    if "prompt" not in columns:
        if is_conversational:
            return PreferenceFormat.IMPLICIT
        raise DataError(
            "`chosen` and `rejected` are plain texts and there is no column `prompt`: two texts do not tell "
            "where the prompt ends. Give the prompt as its own column. "
            f"Found columns: {', '.join(map(str, raw.columns))}."
        )
    if not is_conversational:
        return PreferenceFormat.STANDARD
    # Some datasets repeat the prompt as a text beside whole conversations; the conversations have its roles.
    if _are_mostly_lists(raw["prompt"]):
        return PreferenceFormat.CONVERSATIONAL
    return PreferenceFormat.IMPLICIT


def _are_mostly_lists(cells: Iterable[Any]) -> bool:
    lists = texts = 0
    for cell in cells:
        if isinstance(cell, str):
            texts += 1
        elif isinstance(cell, (list, tuple, np.ndarray)):
            lists += 1
    return lists > texts


def _require_columns(raw: pd.DataFrame, expected: tuple[str, ...]) -> None:
    columns = [str(column) for column in raw.columns]
    missing = [column for column in expected if column not in columns]
    if not missing:
        return
    hints = []
    for column in missing:
        similar = difflib.get_close_matches(column, columns, n=1, cutoff=0.6)
        if similar:
            hints.append(f"`{similar[0]}` may be meant for `{column}`")
    formats = "\n".join(f"  {layout}" for layout in PreferenceFormat)
    raise DataError(
        f"The table of pairs has no column {', '.join(f'`{name}`' for name in missing)}. "
        f"Found: {', '.join(columns) or 'none'}. Expected: {', '.join(expected)}."
        f"{' ' + '; '.join(hints) + '.' if hints else ''} "
        f"Rename the columns to one of the formats:\n{formats}"
    )
