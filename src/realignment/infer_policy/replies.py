"""What a language model replies, read strictly: what cannot be read is left out, never guessed."""

import json
from collections import Counter
from typing import Any

from realignment.chat_client.completions import well_formed


def principles_schema() -> dict[str, Any]:
    """JSON schema of a proposal."""
    listed = {"type": "array", "items": {"type": "string"}}
    return _object({"principles": listed})


def votes_schema(number: int) -> dict[str, Any]:
    """JSON schema of the votes on so many principles."""
    return _object({str(n): {"type": "string", "enum": ["A", "B", "N"]} for n in range(1, number + 1)})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def read_principles(reply: str) -> list[str]:
    """The principles in a reply; empty where it has none that can be read."""
    found = _read_json(reply)
    listed = found.get("principles") if isinstance(found, dict) else found
    if not isinstance(listed, list):
        return []
    texts = [" ".join(well_formed(text).split()) for text in listed if isinstance(text, str)]
    return [text for text in texts if 3 <= len(text.split()) <= 60]


def read_votes(reply: str, number: int) -> dict[int, str]:
    """Votes by the number of the principle; one that is none of A, B, N, or given twice, is left out."""
    found = _read_json(reply)
    if not isinstance(found, dict):
        return {}
    numbers = {str(n): n for n in range(1, number + 1)}  # looked up, for a key may have any number of digits
    votes = [(numbers.get(key.strip().lstrip("0")), value) for key, value in found.items()]
    times = Counter(n for n, _ in votes)
    return {n: v for n, v in votes if n is not None and times[n] == 1 and v in ("A", "B", "N")}


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _read_json(reply: str) -> Any:
    """The outermost JSON value of a reply, also one in prose or in a code block; None: there is none."""
    for opening, closing in (("{", "}"), ("[", "]")):
        start, end = reply.find(opening), reply.rfind(closing)
        if 0 <= start < end:
            try:
                return json.loads(reply[start : end + 1], object_pairs_hook=_without_repeats)
            except (ValueError, RecursionError):
                continue
    return None
