"""Escape cells that a spreadsheet would take for formulas: a model's text may begin like one."""

import re

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_ESCAPED = re.compile(r"'+[=+\-@\t\r]")


def escape_formula(text: str) -> str:
    """Put an apostrophe before a text that begins like a formula, or like an escaped formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def unescape_formula(text: str) -> str:
    """Return the text that `escape_formula` escaped."""
    return text[1:] if _ESCAPED.match(text) else text
