"""What a rule of a policy can check by machine: words, length, form, or a function of the user's own."""

import importlib
import re
from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from realignment.policy.fast_regex import Matcher, lower_text
from realignment.records import Exchange


class PolicyPart(BaseModel):
    """Part of a policy document: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _compile(pattern: str) -> Matcher:
    try:
        return Matcher(pattern)
    except re.error as error:
        raise ValueError(f"broken regular expression {pattern!r}: {error}") from error


class Patterns(PolicyPart):
    """Regular expressions, case-insensitive, that may match anywhere in a text."""

    patterns: tuple[str, ...] = Field(min_length=1)

    @field_validator("patterns")
    @classmethod
    def _require_valid(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            _compile(pattern)
        return patterns

    @cached_property
    def matchers(self) -> tuple[Matcher, ...]:
        """One compiled matcher per pattern."""
        # Not one expression joined by `|`: flags such as `(?s)` and back-references would break.
        return tuple(map(_compile, self.patterns))

    def occur_in(self, text: str) -> bool:
        """Return whether any of the patterns occurs in the text."""
        lowered = lower_text(text)  # once per text, not once per pattern
        for matcher in self.matchers:  # noqa: SIM110  # `any` over a generator takes twice as long
            if matcher.occurs_in(text, lowered):
                return True
        return False


_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


class ForbiddenPatterns(Patterns):
    """The response must match none of the patterns."""

    kind: Literal["forbidden"]

    def holds(self, exchange: Exchange) -> bool:
        """Return whether the response passes the check."""
        return not self.occur_in(exchange.response)


class RequiredPatterns(Patterns):
    """The response must match a pattern; with ``within: first_sentence``, its first sentence must."""

    kind: Literal["required"]
    within: Literal["response", "first_sentence"] = "response"

    def holds(self, exchange: Exchange) -> bool:
        """Return whether the response passes the check."""
        text = exchange.response
        if self.within == "first_sentence":
            text = _SENTENCE_END.split(text.strip(), maxsplit=1)[0]
        return self.occur_in(text)


class LengthLimits(PolicyPart):
    """The number of words in the response must be within the limits, both inclusive."""

    kind: Literal["length"]
    min_words: int = Field(0, ge=0)
    max_words: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _require_order(self) -> "LengthLimits":
        if self.max_words is not None and self.max_words < self.min_words:
            raise ValueError(f"max_words {self.max_words} is below min_words {self.min_words}")
        return self

    def holds(self, exchange: Exchange) -> bool:
        """Return whether the response passes the check."""
        words = len(exchange.response.split())
        return self.min_words <= words and (self.max_words is None or words <= self.max_words)


class FormatPatterns(Patterns):
    """The whole response must match one of the patterns (``(?s)`` lets a dot cross lines)."""

    kind: Literal["format"]

    def holds(self, exchange: Exchange) -> bool:
        """Return whether the response passes the check."""
        text = exchange.response.strip()
        return any(matcher.matches(text) for matcher in self.matchers)


class FunctionCheck(PolicyPart):
    """A function ``(exchange) -> bool`` (True: the rule is kept), given as ``package.module:function``."""

    kind: Literal["callable"]
    path: str

    @field_validator("path")
    @classmethod
    def _require_importable(cls, path: str) -> str:
        _import(path)
        return path

    def holds(self, exchange: Exchange) -> bool:
        """Return whether the response passes the check."""
        return bool(_import(self.path)(exchange))


class JudgedCheck(PolicyPart):
    """No check by machine: the rule's description is the requirement, for people and models that read it."""

    kind: Literal["judged"]

    def holds(self, exchange: Exchange) -> None:
        """Return None: whether the rule is kept is unknown, and a check never guesses."""
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


Check = Annotated[
    ForbiddenPatterns | RequiredPatterns | LengthLimits | FormatPatterns | FunctionCheck | JudgedCheck,
    Field(discriminator="kind"),
]
"""Any check of a rule; `kind` says which one a policy file means."""
