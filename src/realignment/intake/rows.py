"""Rows of any preference format, parsed into one shape: prompt, messages, chosen, rejected."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from realignment.intake.formats import PKU_COLUMNS, PKU_GRADES, TRL_COLUMNS, PreferenceFormat


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row cannot be used, and which field of the source shows it."""

    field: str
    reason: str


@dataclass(frozen=True, slots=True)
class ParsedRow:
    """A row in the common shape, its cells not yet checked.

    Attributes:
        prompt: The prompt as a text.
        chosen: The preferred response.
        rejected: The other response.
        messages: The prompt's messages as JSON; None where the prompt is a single user turn.
        chosen_complies: Whether the chosen response complies, where the format says so.
        rejected_complies: The same for the rejected response.
        chosen_categories: Categories of harm, as the source has them.
        chosen_severity: Severity of harm, as the source has it.
        rejected_categories: The same for the rejected response.
        rejected_severity: The same for the rejected response.
    """

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


def read_rows(raw: pd.DataFrame, layout: PreferenceFormat) -> Iterator[ParsedRow | Problem]:
    """Parse every row of a table, in order.

    Args:
        raw: Rows as `read_table` returns them.
        layout: The table's format, from `detect_format`.

    Returns:
        Per row its cells in the common shape, or why it does not fit the format.
    """
    match layout:
        case PreferenceFormat.STANDARD:
            return itertools.starmap(ParsedRow, _select_cells(raw, TRL_COLUMNS))
        case PreferenceFormat.CONVERSATIONAL:
            return itertools.starmap(_read_conversation, _select_cells(raw, TRL_COLUMNS))
        case PreferenceFormat.IMPLICIT:
            return itertools.starmap(_read_implicit, _select_cells(raw, TRL_COLUMNS[1:]))
        case PreferenceFormat.PKU:
            return _read_pku_rows(raw)


def _select_cells(raw: pd.DataFrame, columns: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    """Return the cells of some columns, row by row."""
    return zip(*(raw[name] for name in columns), strict=True)


def _read_pku_rows(raw: pd.DataFrame) -> Iterator[ParsedRow | Problem]:
    rows = zip(_select_cells(raw, PKU_COLUMNS), _select_grades(raw, 0), _select_grades(raw, 1), strict=True)
    for cells, first_grades, second_grades in rows:
        yield _read_pku(*cells, first_grades=first_grades, second_grades=second_grades)


def _select_grades(raw: pd.DataFrame, response: int) -> Iterator[tuple[Any, ...]]:
    """Return the grades of response 0 or 1, row by row; None for those without a column."""
    no_grades = pd.Series([None] * len(raw), dtype=object)
    return zip(*(raw.get(name.format(response), no_grades) for name in PKU_GRADES), strict=True)


def _read_pku(
    prompt: Any,
    first: Any,
    second: Any,
    better: Any,
    *,
    first_grades: tuple[Any, ...],
    second_grades: tuple[Any, ...],
) -> ParsedRow | Problem:
    if str(better) not in ("0", "1"):
        return Problem("better_response_id", f"expected 0 or 1, found {better!r:.40}")
    responses = [(first, first_grades), (second, second_grades)]
    (chosen, chosen_grades), (rejected, rejected_grades) = (
        responses if str(better) == "0" else responses[::-1]
    )
    return ParsedRow(
        prompt,
        chosen,
        rejected,
        chosen_complies=chosen_grades[0],
        chosen_categories=chosen_grades[1],
        chosen_severity=chosen_grades[2],
        rejected_complies=rejected_grades[0],
        rejected_categories=rejected_grades[1],
        rejected_severity=rejected_grades[2],
    )


def _read_conversation(prompt: Any, chosen: Any, rejected: Any) -> ParsedRow | Problem:
    conversation = []
    for field, cell in zip(TRL_COLUMNS, (prompt, chosen, rejected), strict=True):
        messages = _parse_messages(cell, field)
        if isinstance(messages, Problem):
            return messages
        conversation.append(messages)
    return _build_row(*conversation)


def _read_implicit(chosen: Any, rejected: Any) -> ParsedRow | Problem:
    first = _parse_messages(chosen, "chosen")
    second = _parse_messages(rejected, "rejected")
    if isinstance(first, Problem):
        return first
    if isinstance(second, Problem):
        return second
    if first == second:
        return Problem("rejected", "equal to chosen")
    # The prompt is what both conversations begin with.
    prompt_turns = 0
    while prompt_turns < min(len(first), len(second)) and first[prompt_turns] == second[prompt_turns]:
        prompt_turns += 1
    if not prompt_turns:
        return Problem("chosen", "shares no first message with rejected: there is no common prompt")
    return _build_row(first[:prompt_turns], first[prompt_turns:], second[prompt_turns:])


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
        fields = message if isinstance(message, dict) else {}
        role = fields.get("role")
        content = fields.get("content")
        if not isinstance(role, str) or not isinstance(content, str):
            return Problem(field, "a message needs `role` and `content`, both texts")
        if not content.strip():
            return Problem(field, f"empty message of role {role}")
        messages.append({"role": role, "content": content})
    return messages


def _build_row(
    prompt: list[dict[str, str]], chosen: list[dict[str, str]], rejected: list[dict[str, str]]
) -> ParsedRow | Problem:
    for field, messages in (("chosen", chosen), ("rejected", rejected)):
        if len(messages) != 1 or messages[0]["role"] != "assistant":
            roles = ", ".join(message["role"] for message in messages) or "nothing"
            return Problem(field, f"expected one assistant message after the prompt, found {roles}")
    if prompt[-1]["role"] != "user":
        return Problem("prompt", f"must end with a user message, ends with {prompt[-1]['role']}")
    text, prompt_json = render_prompt(prompt)
    return ParsedRow(text, chosen[0]["content"], rejected[0]["content"], prompt_json)


def render_prompt(messages: list[dict[str, str]]) -> tuple[str, str | None]:
    """Write a prompt's messages as one text.

    Args:
        messages: Mappings of role and content.

    Returns:
        The text for people, and the messages as JSON; None instead of JSON for a single user turn, whose
        text says it all.
    """
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"], None
    text = "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)
    return text, json.dumps(messages, ensure_ascii=False)


def truncate_prompt(prompt: str, messages: str | None, limit: int) -> tuple[str, str | None]:
    """Shorten a prompt to its end, where the request that the response answers is.

    Args:
        prompt: The prompt as a text.
        messages: Its messages as JSON; None for a single user turn.
        limit: Characters that the text may have.

    Returns:
        Text and messages, as `render_prompt` returns them. Of a conversation the oldest messages are dropped
        first; a system message stays until only the last message is left beside it.
    """
    if messages is None:
        return prompt[-limit:], None
    turns = json.loads(messages)
    while len(turns) > 1 and len(render_prompt(turns)[0]) > limit:
        turns.pop(1 if turns[0]["role"] == "system" and len(turns) > 2 else 0)
    text, turns_json = render_prompt(turns)
    return (text, turns_json) if len(text) <= limit else (text[-limit:], None)
