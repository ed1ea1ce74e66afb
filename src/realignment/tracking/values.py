"""Bring nested values into the form that MLflow takes: flat names, finite numbers, short texts."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from numbers import Real
from typing import Any

from pydantic import BaseModel

# MLflow's own limits, in characters.
_PARAM_LENGTH = 6000
_TAG_LENGTH = 8000
_NAME_LENGTH = 250


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings, models and dataclasses; a list is a leaf.

    Args:
        value: The nested value.
        name: Its own dotted name.

    Yields:
        Dotted name and value of each leaf.
    """
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    elif is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flatten(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def list_items(name: str, leaf: Any) -> Iterator[tuple[str, Any]]:
    """Yield a leaf with its name; of a list each item, with its index in the name."""
    if isinstance(leaf, list | tuple):
        for index, item in enumerate(leaf):
            yield f"{name}.{index}", item
    else:
        yield name, leaf


def is_finite_number(value: Any) -> bool:
    """Return whether a value can be a metric."""
    return isinstance(value, Real) and math.isfinite(value)


def split_value(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield a value as text, in parts that MLflow takes; the first part has the plain name."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    for number, start in enumerate(range(0, max(len(text), 1), _PARAM_LENGTH), start=1):
        yield (name if number == 1 else f"{name}.part{number}"), text[start : start + _PARAM_LENGTH]


def legal_name(name: str) -> str:
    """Return a name with `_` for every sign that MLflow refuses, cut to its limit."""
    return re.sub(r"[^\w\-. /]", "_", name)[:_NAME_LENGTH]


def shorten_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags with values that are cut to MLflow's limit."""
    return {key: value[:_TAG_LENGTH] for key, value in tags.items()}


def divide(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yield a sequence in batches of so many items."""
    return (items[start : start + size] for start in range(0, len(items), size))
