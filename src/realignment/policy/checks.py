"""What a rule of a policy can check by machine: words, length, form, or a function of the user's own."""

import importlib
import re
from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from realignment.policy.fast_regex import Matcher, lower_text
from realignment.records import Exchange


class Document(BaseModel):
    """Part of a policy document: frozen, and a key that is not listed is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _compile(pattern: str) -> Matcher:
    try:
        return Matcher(pattern)
    except re.error as error:
        raise ValueError(f"broken regular expression {pattern!r}: {error}") from error


class Patterns(Document):
    """Regular expressions, case-insensitive, matched anywhere in the text that is looked at."""

    patterns: tuple[str, ...] = Field(min_length=1)

    @field_validator("patterns")
    @classmethod
    def _patterns_compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            _compile(pattern)
        return patterns

    @cached_property
    def matchers(self) -> tuple[Matcher, ...]:
        """One a pattern: joined by `|`, flags such as ``(?s)`` and back-references would break."""
        return tuple(map(_compile, self.patterns))

    def occur_in(self, text: str) -> bool:
        """Whether any pattern occurs in the text."""
        lowered = lower_text(text)
        for matcher in self.matchers:  # noqa: SIM110  # `any` over a generator takes twice as long
            if matcher.occurs_in(text, lowered):
                return True
        return False


_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


class Forbidden(Patterns):
    """Broken where any pattern occurs."""

    kind: Literal["forbidden"]

    def holds(self, exchange: Exchange) -> bool:
        """Whether the response keeps to the check."""
        return not self.occur_in(exchange.response)


class Required(Patterns):
    """Broken where no pattern occurs; ``within: first_sentence`` looks at the first sentence alone."""

    kind: Literal["required"]
    within: Literal["response", "first_sentence"] = "response"

    def holds(self, exchange: Exchange) -> bool:
        """Whether the response keeps to the check."""
        text = exchange.response
        if self.within == "first_sentence":
            text = _SENTENCE_END.split(text.strip(), maxsplit=1)[0]
        return self.occur_in(text)


class Length(Document):
    """Limits on the number of words."""

    kind: Literal["length"]
    min_words: int = Field(0, ge=0)
    max_words: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> "Length":
        if self.max_words is not None and self.max_words < self.min_words:
            raise ValueError(f"max_words {self.max_words} is below min_words {self.min_words}")
        return self

    def holds(self, exchange: Exchange) -> bool:
        """Whether the response keeps to the check."""
        words = len(exchange.response.split())
        return self.min_words <= words and (self.max_words is None or words <= self.max_words)


class Format(Patterns):
    """The whole response must match one of the patterns (``(?s)`` lets a dot cross lines)."""

    kind: Literal["format"]

    def holds(self, exchange: Exchange) -> bool:
        """Whether the response keeps to the check."""
        text = exchange.response.strip()
        return any(matcher.matches(text) for matcher in self.matchers)


class Call(Document):
    """A function ``(exchange) -> bool`` (True: keeps to the rule), given as ``package.module:function``."""

    kind: Literal["callable"]
    path: str

    @field_validator("path")
    @classmethod
    def _importable(cls, path: str) -> str:
        _import(path)
        return path

    def holds(self, exchange: Exchange) -> bool:
        """Whether the response keeps to the check."""
        return bool(_import(self.path)(exchange))


class Judged(Document):
    """No machine check: what the rule asks for is in its description, for people and models that read."""

    kind: Literal["judged"]

    def holds(self, exchange: Exchange) -> None:
        """Not known: a machine that cannot tell does not guess."""
        return None


def _import(path: str) -> Callable[[Exchange], bool]:
    module, _, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # the module is the user's: importing it may raise anything
        raise ValueError(f"cannot import {path!r} (expected 'package.module:function'): {error}") from error
    if not callable(function):
        raise ValueError(f"{path!r} is a {type(function).__name__}, not a function")
    return function  # type: ignore[no-any-return]


Check = Annotated[Forbidden | Required | Length | Format | Call | Judged, Field(discriminator="kind")]
