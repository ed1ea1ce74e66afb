"""Parsing of a language model's replies: what cannot be read is left out, never guessed."""

import json
from collections import Counter
from typing import Any

from realignment.chat_client.completions import replace_surrogates


def principles_schema() -> dict[str, Any]:
    """Return the JSON schema of a proposal."""
    return _build_object_schema({"principles": {"type": "array", "items": {"type": "string"}}})


def votes_schema(number: int) -> dict[str, Any]:
    """Return the JSON schema of the votes on a number of principles."""
    vote = {"type": "string", "enum": ["A", "B", "N"]}
    return _build_object_schema({str(n): vote for n in range(1, number + 1)})


def _build_object_schema(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def read_principles(reply: str) -> list[str]:
    """Return the principles in a reply; empty where it has none that can be read."""
    value = _read_json(reply)
    principles = value.get("principles") if isinstance(value, dict) else value
    if not isinstance(principles, list):
        return []
    texts = [" ".join(replace_surrogates(text).split()) for text in principles if isinstance(text, str)]
    # Shorter and longer ones are headings or essays, not principles.
    return [text for text in texts if 3 <= len(text.split()) <= 60]


def read_votes(reply: str, number: int) -> dict[int, str]:
    """Read the votes in a reply.

    Args:
        reply: What the model replied.
        number: How many principles were voted on.

    Returns:
        Votes by the number of the principle; those that are none of A, B, N, or repeated, are left out.
    """
    value = _read_json(reply)
    if not isinstance(value, dict):
        return {}
    # Looked up and not converted, for a key may have any number of digits.
    numbers = {str(n): n for n in range(1, number + 1)}
    votes = [(numbers.get(key.strip().lstrip("0")), vote) for key, vote in value.items()]
    counts = Counter(n for n, _ in votes)  # "1" and "01" name the same principle
    return {n: vote for n, vote in votes if n is not None and counts[n] == 1 and vote in ("A", "B", "N")}


def _refuse_repeats(items: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(items)
    if len(value) < len(items):
        raise ValueError("a key is there twice")
    return value


def _read_json(reply: str) -> Any:
    """Return the outermost JSON value of a reply, also from prose or a code block; None without one."""
    for opening, closing in (("{", "}"), ("[", "]")):
        start = reply.find(opening)
        end = reply.rfind(closing)
        if 0 <= start < end:
            try:
                return json.loads(reply[start : end + 1], object_pairs_hook=_refuse_repeats)
            except (ValueError, RecursionError):
                continue
    return None
