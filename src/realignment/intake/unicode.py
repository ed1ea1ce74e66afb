"""Lone surrogates: JSON can encode half of a surrogate pair, and no table, file or model can hold it."""

from collections.abc import Iterable

from realignment.records import DataError


def has_lone_surrogate(text: str) -> bool:
    """Return whether the text has half of a surrogate pair, so that it is not valid Unicode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def require_unicode(names: Iterable[str]) -> None:
    """Make sure that a table can hold the names of its columns.

    Args:
        names: The names of the columns.

    Raises:
        DataError: A name is not valid Unicode.
    """
    for name in names:
        if has_lone_surrogate(name):
            raise DataError(
                f"The name {name!a:.80} of a column is not valid Unicode: it has half of a surrogate pair. "
                "Rename or remove it."
            )
