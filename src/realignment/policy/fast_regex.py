"""Case-insensitive search as `re.IGNORECASE` does it, and several times faster on ordinary English text.

Two things make `re` slow here. With the flag it cannot reject an alternative by its first letter: so the text
is lowered and searched by a lowered pattern without the flag. And it tries a pattern at every position: so a
pattern is tried only where a piece of text occurs that every match contains. Whatever is not plainly safe to
treat so (a text with letters beyond ASCII, a pattern with inline flags, named groups or escaped codes) is
left to `re`.
"""

import re
from collections.abc import Iterable
from re import _constants as op  # type: ignore[attr-defined]  # a parsed pattern has no public names
from re import _parser  # type: ignore[attr-defined]
from typing import Any

_BEYOND_ASCII = re.compile(r"[^\x00-\x7f‘’“”–—…•·§°€£\u00a0]")
_GROUPS = ("(?:", "(?=", "(?!", "(?<=", "(?<!")
_SAFE_ESCAPES = set("bBdDsSwWAZnrt")
_SHORTEST, _MOST = 2, 48
_REPEATS = (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT)


class Matcher:
    """One pattern, compiled; a broken one raises `re.error`."""

    def __init__(self, pattern: str) -> None:
        self._exact = re.compile(pattern, re.IGNORECASE)
        lowered = lower_pattern(pattern)
        self._quick = None if lowered is None else re.compile(lowered)
        self._needed = () if lowered is None else tuple(sorted(needed_texts(_parser.parse(lowered))))

    def occurs_in(self, text: str, lowered: str | None) -> bool:
        """Whether the pattern occurs anywhere in the text; `lowered` is what `lower_text` makes of it."""
        if self._quick is None or lowered is None:
            return self._exact.search(text) is not None
        for piece in self._needed:
            if piece in lowered:
                break
        else:
            if self._needed:
                return False
        return self._quick.search(lowered) is not None

    def matches(self, text: str) -> bool:
        """Whether the pattern matches the whole text."""
        return self._exact.fullmatch(text) is not None


def lower_text(text: str) -> str | None:
    """The text as patterns without the flag are searched in; None where that is not plainly the same."""
    return text.lower() if text.isascii() or _BEYOND_ASCII.search(text) is None else None


def lower_pattern(pattern: str) -> str | None:
    """The pattern for lowered text, without the flag; None where that is not plainly the same."""
    lowered = []
    position = 0
    while position < len(pattern):
        char = pattern[position]
        if char == "\\":
            escaped = pattern[position + 1 : position + 2]
            if escaped.isalnum() and escaped not in _SAFE_ESCAPES:
                return None
            lowered.append(char + escaped)
            position += 2
            continue
        if pattern.startswith("(?", position) and not pattern.startswith(_GROUPS, position):
            return None
        if not char.isascii() and char.lower() != char.upper():
            return None
        if _is_range(pattern, position) and not _is_plain_range(pattern[position - 1], pattern[position + 1]):
            return None
        lowered.append(char.lower())
        position += 1
    return "".join(lowered)


def _is_range(pattern: str, position: int) -> bool:
    """Whether a range of a character class may be here; a dash in plain text is taken for one as well."""
    return pattern[position] == "-" and 0 < position < len(pattern) - 1


def _is_plain_range(first: str, last: str) -> bool:
    """Whether both ends are of one kind, or no letters: so that lowering them keeps what lies between."""
    kinds = (str.islower, str.isupper, str.isdigit)
    return any(kind(first) and kind(last) for kind in kinds) or not (first.isalpha() or last.isalpha())


def needed_texts(parsed: Iterable[Any]) -> frozenset[str]:
    """Texts of which every match contains at least one; empty where none can be told.

    Args:
        parsed: A pattern as `re` parses it: pairs of an operation and its argument.
    """
    found: list[frozenset[str]] = []
    run = ""
    for kind, argument in [*parsed, (None, None)]:
        if kind is op.LITERAL:
            run += chr(argument)
            continue
        found.append(frozenset({run}))
        run = ""
        if kind is op.SUBPATTERN:
            found.append(needed_texts(argument[3]))
        elif kind is op.BRANCH:
            branches = [needed_texts(branch) for branch in argument[1]]
            found.append(frozenset().union(*branches) if all(branches) else frozenset())
        elif kind in _REPEATS and argument[0] >= 1:
            found.append(needed_texts(argument[2]))
    usable = [texts for texts in found if texts and len(texts) <= _MOST and min(map(len, texts)) >= _SHORTEST]
    return max(usable, key=lambda texts: (min(map(len, texts)), -len(texts)), default=frozenset())
