"""The preference formats that people bring, each read into one shape: prompt, messages, chosen, rejected."""

import difflib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd

from realignment.records import DataError


class PreferenceFormat(StrEnum):
    """One format per table; rows of another are rejected."""

    STANDARD = "TRL standard (prompt, chosen, rejected: texts)"
    CONVERSATIONAL = "TRL conversational (prompt, chosen, rejected: lists of messages)"
    IMPLICIT = "TRL implicit prompt (chosen, rejected: whole conversations)"
    PKU = "PKU-SafeRLHF (prompt, response_0, response_1, better_response_id)"


_PKU_COLUMNS = ("prompt", "response_0", "response_1", "better_response_id")
PKU_GRADES = ("is_response_{}_safe", "response_{}_harm_category", "response_{}_severity_level")
_TRL_COLUMNS = ("prompt", "chosen", "rejected")


@dataclass(frozen=True, slots=True)
class Problem:
    """Why one row cannot be used, and in which field of the source that shows."""

    field: str
    reason: str


@dataclass(frozen=True, slots=True)
class Reading:
    """One row in the common shape; `messages` is None where the prompt is a single user turn."""

    prompt: Any
    chosen: Any
    rejected: Any
    messages: str | None = None
    chosen_complies: Any = None
    rejected_complies: Any = None
    chosen_categories: Any = None
    chosen_severity: Any = None
    rejected_categories: Any = None
    rejected_severity: Any = None


def detect_format(raw: pd.DataFrame) -> PreferenceFormat:
    """The format of a table by its columns, and where these leave a choice, by what most cells are.

    Raises:
        DataError: If columns are missing, or plain texts come without a prompt.
    """
    columns = set(raw.columns)
    if not {"chosen", "rejected"} <= columns and {"response_0", "response_1", "better_response_id"} & columns:
        _require_columns(raw, _PKU_COLUMNS)
        return PreferenceFormat.PKU
    _require_columns(raw, _TRL_COLUMNS if "prompt" in columns else _TRL_COLUMNS[1:])
    conversations = _mostly_lists([*raw["chosen"], *raw["rejected"]])
    if "prompt" not in columns:
        if conversations:
            return PreferenceFormat.IMPLICIT
        raise DataError(
            "`chosen` and `rejected` are plain texts and there is no column `prompt`: two texts do not tell "
            "where the prompt ends. Give the prompt as its own column. "
            f"Found columns: {', '.join(map(str, raw.columns))}."
        )
    if not conversations:
        return PreferenceFormat.STANDARD
    # Some datasets repeat the prompt as a text beside whole conversations; the conversations know more.
    return PreferenceFormat.CONVERSATIONAL if _mostly_lists(raw["prompt"]) else PreferenceFormat.IMPLICIT


def _mostly_lists(cells: Iterable[Any]) -> bool:
    given = [cell for cell in cells if isinstance(cell, (str, list, tuple, np.ndarray))]
    return 2 * sum(not isinstance(cell, str) for cell in given) > len(given)


def _require_columns(raw: pd.DataFrame, expected: tuple[str, ...]) -> None:
    found = [str(column) for column in raw.columns]
    missing = [column for column in expected if column not in found]
    if not missing:
        return
    near = {column: difflib.get_close_matches(column, found, n=1, cutoff=0.6) for column in missing}
    hints = [f"`{names[0]}` may be meant for `{column}`" for column, names in near.items() if names]
    formats = "\n".join(f"  {known}" for known in PreferenceFormat)
    raise DataError(
        f"The table of pairs has no column {', '.join(f'`{name}`' for name in missing)}. "
        f"Found: {', '.join(found) or 'none'}. Expected: {', '.join(expected)}."
        f"{' ' + '; '.join(hints) + '.' if hints else ''} "
        f"Rename the columns to one of the formats:\n{formats}"
    )


def read_rows(raw: pd.DataFrame, layout: PreferenceFormat) -> Iterator[Reading | Problem]:
    """Every row of a table in the common shape, or why it does not fit the table's format."""
    if layout is PreferenceFormat.STANDARD:
        return (Reading(*cells) for cells in zip(*(raw[name] for name in _TRL_COLUMNS), strict=True))
    if layout is PreferenceFormat.PKU:
        unknown = pd.Series([None] * len(raw), dtype=object)
        grades = [raw.get(name.format(k), unknown) for k in (0, 1) for name in PKU_GRADES]
        return (
            _read_pku(*cells[:4], grades=cells[4:7], other=cells[7:])
            for cells in zip(*(raw[name] for name in _PKU_COLUMNS), *grades, strict=True)
        )
    if layout is PreferenceFormat.CONVERSATIONAL:
        return (
            _read_conversation(*cells) for cells in zip(*(raw[name] for name in _TRL_COLUMNS), strict=True)
        )
    return (_read_implicit(*cells) for cells in zip(raw["chosen"], raw["rejected"], strict=True))


def _read_pku(
    prompt: Any,
    first: Any,
    second: Any,
    better: Any,
    *,
    grades: tuple[Any, ...],
    other: tuple[Any, ...],
) -> Reading | Problem:
    if str(better) not in ("0", "1"):
        return Problem("better_response_id", f"expected 0 or 1, found {better!r:.40}")
    if str(better) == "1":
        first, second, grades, other = second, first, other, grades
    return Reading(prompt, first, second, None, grades[0], other[0], *grades[1:], *other[1:])


def _read_conversation(prompt: Any, chosen: Any, rejected: Any) -> Reading | Problem:
    turns = []
    for field, cell in zip(_TRL_COLUMNS, (prompt, chosen, rejected), strict=True):
        messages = _parse_messages(cell, field)
        if isinstance(messages, Problem):
            return messages
        turns.append(messages)
    return _assemble(*turns)


def _read_implicit(chosen: Any, rejected: Any) -> Reading | Problem:
    first, second = _parse_messages(chosen, "chosen"), _parse_messages(rejected, "rejected")
    if isinstance(first, Problem):
        return first
    if isinstance(second, Problem):
        return second
    if first == second:
        return Problem("rejected", "equal to chosen")
    shared = 0
    while shared < min(len(first), len(second)) and first[shared] == second[shared]:
        shared += 1
    if not shared:
        return Problem("chosen", "shares no first message with rejected: there is no common prompt")
    return _assemble(first[:shared], first[shared:], second[shared:])


def _parse_messages(cell: Any, field: str) -> list[dict[str, str]] | Problem:
    cell = cell.tolist() if isinstance(cell, np.ndarray) else cell
    if cell is None or (isinstance(cell, float) and np.isnan(cell)):
        return Problem(field, "is null")
    if not isinstance(cell, (list, tuple)):
        return Problem(
            field, f"expected a list of messages like the rest of the table, found {type(cell).__name__}"
        )
    if not cell:
        return Problem(field, "empty list of messages")
    messages = []
    for message in cell:
        role, content = (
            (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        )
        if not isinstance(role, str) or not isinstance(content, str):
            return Problem(field, "a message needs `role` and `content`, both texts")
        if not content.strip():
            return Problem(field, f"empty message of role {role}")
        messages.append({"role": role, "content": content})
    return messages


def _assemble(
    prompt: list[dict[str, str]], chosen: list[dict[str, str]], rejected: list[dict[str, str]]
) -> Reading | Problem:
    for field, answer in (("chosen", chosen), ("rejected", rejected)):
        if len(answer) != 1 or answer[0]["role"] != "assistant":
            roles = ", ".join(message["role"] for message in answer) or "nothing"
            return Problem(field, f"expected one assistant message after the prompt, found {roles}")
    if prompt[-1]["role"] != "user":
        return Problem("prompt", f"must end with a user message, ends with {prompt[-1]['role']}")
    text, messages = render_prompt(prompt)
    return Reading(text, chosen[0]["content"], rejected[0]["content"], messages)


def render_prompt(messages: list[dict[str, str]]) -> tuple[str, str | None]:
    """The prompt for people, and its messages as JSON where it is more than one user turn (else None)."""
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"], None
    text = "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)
    return text, json.dumps(messages, ensure_ascii=False)


def cut_prompt(prompt: str, messages: str | None, limit: int) -> tuple[str, str | None]:
    """The end of a prompt, at most `limit` characters: what the response answers stands at the end.

    Of a conversation the oldest messages go first, a system message last of all but the question itself.
    """
    if messages is None:
        return prompt[-limit:], None
    kept = json.loads(messages)
    while len(kept) > 1 and len(render_prompt(kept)[0]) > limit:
        kept.pop(1 if kept[0]["role"] == "system" and len(kept) > 2 else 0)
    text, remaining = render_prompt(kept)
    return (text, remaining) if len(text) <= limit else (text[-limit:], None)
