"""Half of a surrogate pair: JSON can say one, and no table, file or model can hold it."""

from collections.abc import Iterable

from realignment.records import DataError


def has_lone_surrogate(text: str) -> bool:
    """Whether the text is not valid Unicode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def require_unicode(names: Iterable[str]) -> None:
    """An error where a column has a name that no table can hold."""
    for name in filter(has_lone_surrogate, names):
        raise DataError(
            f"The name {name!a:.80} of a column is not valid Unicode: it has half of a surrogate pair. "
            "Rename or remove it."
        )
