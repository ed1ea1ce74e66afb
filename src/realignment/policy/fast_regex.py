"""Case-insensitive search as `re.IGNORECASE` does it, and several times faster on ordinary English text.

Two things make `re` slow here. With the flag, it cannot reject an alternative by its first letter; so the
text is lowered and searched by a lowered pattern without the flag. And it tries a pattern at every position;
so a pattern is tried only in texts that contain one of the substrings that every match needs. Whatever is
not certain to give the same result this way (a text with letters beyond ASCII, a pattern with inline flags,
named groups or escaped codes) is searched by `re` with the flag.
"""

import re
from collections.abc import Iterable
from re import _constants as op  # type: ignore[attr-defined]  # a parsed pattern has no public names
from re import _parser  # type: ignore[attr-defined]
from typing import Any

# ASCII, and typographic marks that have no upper or lower case.
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f‘’“”–—…•·§°€£\u00a0]")
# The groups that behave alike in a lowered pattern: no flags, no names, no conditions.
_GROUPS = ("(?:", "(?=", "(?!", "(?<=", "(?<!")
# The escapes that neither name a character by its code nor refer to a group.
_SAFE_ESCAPES = set("bBdDsSwWAZnrt")
# Shorter substrings occur in nearly every text; with more alternatives, looking for them costs the gain.
_MIN_SUBSTRING_LENGTH = 2
_MAX_SUBSTRINGS = 48
_REPEATS = (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT)


class Matcher:
    """Matches one regular expression, ignoring case; a broken one raises `re.error`."""

    def __init__(self, pattern: str) -> None:
        self._exact = re.compile(pattern, re.IGNORECASE)
        self._quick: re.Pattern[str] | None = None
        self._substrings: tuple[str, ...] = ()
        lowered = lower_pattern(pattern)
        if lowered is not None:
            self._quick = re.compile(lowered)
            self._substrings = tuple(sorted(find_required_substrings(_parser.parse(lowered))))

    def occurs_in(self, text: str, lowered: str | None) -> bool:
        """Return whether the pattern occurs anywhere in the text.

        Args:
            text: The text to search.
            lowered: The same text as `lower_text` returns it, computed once for many patterns.

        Returns:
            What `re.search` with `re.IGNORECASE` would find.
        """
        if self._quick is None or lowered is None:
            return self._exact.search(text) is not None
        for substring in self._substrings:
            if substring in lowered:
                break
        else:
            # None of the substrings occurs, and every match contains one: no need to run the pattern.
            if self._substrings:
                return False
        return self._quick.search(lowered) is not None

    def matches(self, text: str) -> bool:
        """Return whether the pattern matches the whole text."""
        return self._exact.fullmatch(text) is not None


def lower_text(text: str) -> str | None:
    """Return the text in lower case, or None where lowering it might change what a pattern matches."""
    return text.lower() if text.isascii() or _BEYOND_ASCII.search(text) is None else None


def lower_pattern(pattern: str) -> str | None:
    """Return the pattern to search lowered text with, or None where it might find something else."""
    lowered = []
    position = 0
    while position < len(pattern):
        char = pattern[position]
        if char == "\\":
            escaped = pattern[position + 1 : position + 2]
            if escaped.isalnum() and escaped not in _SAFE_ESCAPES:
                return None
            # An escape keeps its case: `\S` and `\s` are opposites.
            lowered.append(char + escaped)
            position += 2
            continue
        if pattern.startswith("(?", position) and not pattern.startswith(_GROUPS, position):
            return None
        # `re.IGNORECASE` has its own rules for letters beyond ASCII, such as ß and the Kelvin sign.
        if not char.isascii() and char.lower() != char.upper():
            return None
        if _is_range(pattern, position) and not _is_plain_range(pattern[position - 1], pattern[position + 1]):
            return None
        lowered.append(char.lower())
        position += 1
    return "".join(lowered)


def _is_range(pattern: str, position: int) -> bool:
    """Return whether a range of a character class may be here; a dash in plain text counts as one too."""
    return pattern[position] == "-" and 0 < position < len(pattern) - 1


def _is_plain_range(first: str, last: str) -> bool:
    """Return whether lowering the ends of a range keeps the set of characters that it matches.

    It does where both ends are of one kind (lower case, upper case, digit) or neither is a letter.
    """
    kinds = (str.islower, str.isupper, str.isdigit)
    return any(kind(first) and kind(last) for kind in kinds) or not (first.isalpha() or last.isalpha())


def find_required_substrings(parsed: Iterable[Any]) -> frozenset[str]:
    """Return substrings of which every match contains at least one; empty where there are none to rely on.

    Args:
        parsed: A pattern as `re` parses it: pairs of an operation and its argument.

    Returns:
        The alternatives of that part of the pattern whose shortest alternative is the longest.
    """
    # Each part of the pattern in turn gives one set; every match contains a member of each set.
    sets: list[frozenset[str]] = []
    literal = ""
    for kind, argument in [*parsed, (None, None)]:
        if kind is op.LITERAL:
            literal += chr(argument)
            continue
        # A run of literal characters ends here; it stands in every match as it is.
        sets.append(frozenset({literal}))
        literal = ""
        if kind is op.SUBPATTERN:
            sets.append(find_required_substrings(argument[3]))
        elif kind is op.BRANCH:
            branches = [find_required_substrings(branch) for branch in argument[1]]
            # A branch without a required substring can match anything: then the whole choice tells nothing.
            sets.append(frozenset().union(*branches) if all(branches) else frozenset())
        elif kind in _REPEATS and argument[0] >= 1:
            # Repeated at least once, so its content occurs at least once.
            sets.append(find_required_substrings(argument[2]))
    usable = [
        texts
        for texts in sets
        if texts and len(texts) <= _MAX_SUBSTRINGS and min(map(len, texts)) >= _MIN_SUBSTRING_LENGTH
    ]
    return max(usable, key=lambda texts: (min(map(len, texts)), -len(texts)), default=frozenset())
