"""A policy as a document: rules that people can read and machines can check; its digest; the difference of two policies."""

import hashlib
import importlib
import re
from collections.abc import Callable
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from realignment.records import Exchange, RealignmentError


class PolicyError(RealignmentError):
    """A policy document that cannot be used; the message names the rule."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"broken regular expression {pattern!r}: {error}") from error


class Severity(StrEnum):
    """How grave a violation is. Any broken rule makes a response violate; severity orders reports and reviews."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Patterns(_Document):
    """Regular expressions, case-insensitive, matched anywhere in the text that is looked at."""

    patterns: tuple[str, ...] = Field(min_length=1)

    @field_validator("patterns")
    @classmethod
    def _patterns_compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            _compile(pattern)
        return patterns

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """All patterns as one alternation."""
        return _compile("|".join(f"(?:{pattern})" for pattern in self.patterns))


_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


class Forbidden(Patterns):
    """Broken where any pattern occurs."""

    kind: Literal["forbidden"]

    def holds(self, exchange: Exchange) -> bool:
        """Whether the response keeps to the check."""
        return self.regex.search(exchange.response) is None


class Required(Patterns):
    """Broken where no pattern occurs; ``within: first_sentence`` looks at the first sentence alone."""

    kind: Literal["required"]
    within: Literal["response", "first_sentence"] = "response"

    def holds(self, exchange: Exchange) -> bool:
        """Whether the response keeps to the check."""
        text = exchange.response
        if self.within == "first_sentence":
            text = _SENTENCE_END.split(text.strip(), maxsplit=1)[0]
        return self.regex.search(text) is not None


class Length(_Document):
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
        return self.regex.fullmatch(exchange.response.strip()) is not None


class Call(_Document):
    """A function ``(exchange) -> bool`` (True: keeps to the rule) by its dotted path, ``package.module:function``."""

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


def _import(path: str) -> Callable[[Exchange], bool]:
    module, _, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"cannot import {path!r} (expected 'package.module:function'): {error}") from error
    if not callable(function):
        raise ValueError(f"{path!r} is a {type(function).__name__}, not a function")
    return function  # type: ignore[no-any-return]


Check = Annotated[Forbidden | Required | Length | Format | Call, Field(discriminator="kind")]


class Scope(_Document):
    """Which exchanges a rule applies to: all conditions given must hold; none given: every exchange.

    ``domains`` reads the data's own topic column, ``prompt`` patterns must match the prompt, ``except_prompt`` must not.
    """

    domains: tuple[str, ...] | None = None
    prompt: Patterns | None = None
    except_prompt: Patterns | None = None

    def covers(self, exchange: Exchange) -> bool:
        """Whether the rule has anything to say about this exchange."""
        return (
            (self.domains is None or exchange.domain in self.domains)
            and (self.prompt is None or self.prompt.regex.search(exchange.prompt) is not None)
            and (self.except_prompt is None or self.except_prompt.regex.search(exchange.prompt) is None)
        )


class Rule(_Document):
    """One requirement of a policy, for people (description) and for machines (scope, check)."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    description: str = Field(min_length=1)
    severity: Severity = Severity.MEDIUM
    scope: Scope = Scope()
    check: Check

    def kept_by(self, exchange: Exchange) -> bool:
        """Whether the exchange keeps to this rule; out of scope counts as kept."""
        return not self.scope.covers(exchange) or self.check.holds(exchange)


class Policy(_Document):
    """A named, versioned set of rules; `text` is what an LLM judge and people read. No rules: not machine-checkable."""

    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    text: str = Field(min_length=1)
    rules: tuple[Rule, ...] = ()

    @model_validator(mode="after")
    def _unique_rule_ids(self) -> "Policy":
        ids = [rule.id for rule in self.rules]
        if repeated := sorted({rule_id for rule_id in ids if ids.count(rule_id) > 1}):
            raise ValueError(f"rule ids must be unique, repeated: {', '.join(repeated)}")
        return self

    @cached_property
    def digest(self) -> str:
        """sha256 over the content, independent of layout, comments and key order of the file."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def broken_rules(self, exchange: Exchange) -> tuple[str, ...]:
        """Ids of the rules that the exchange breaks, in the policy's order."""
        return tuple(rule.id for rule in self.rules if not rule.kept_by(exchange))


def parse_policy(document: Any, source: str) -> Policy:
    """A policy from its parsed YAML; every mistake at once, each with the rule it is in."""
    if not isinstance(document, dict):
        raise PolicyError(
            f"{source}: expected a mapping with name, version, text and rules, found {type(document).__name__}."
        )
    try:
        return TypeAdapter(Policy).validate_python(document)
    except ValidationError as error:
        lines = [_describe(document, details) for details in error.errors()]
        raise PolicyError(
            f"{source} is not a valid policy:\n" + "\n".join(f"- {line}" for line in lines)
        ) from error


def _describe(document: dict[str, Any], details: Any) -> str:
    where, place = [], document.get("rules")
    for part in details["loc"]:
        if part == "rules":
            continue
        if isinstance(part, int) and isinstance(place, list) and not where:
            rule = place[part] if part < len(place) else None
            where.append(f"rule {rule.get('id', part) if isinstance(rule, dict) else part}")
        else:
            where.append(str(part))
    return f"{' → '.join(where) or 'document'}: {details['msg']} (found {details['input']!r})"[:400]


def read_policy(path: Path) -> Policy:
    """Load and validate a policy file."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yml"))) or "none"
        raise PolicyError(f"No policy file {path}. Policies in that folder: {known}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path} is not readable as UTF-8 YAML: {error}") from error
    return parse_policy(document, source=path.name)


def diff_policies(old: Policy, new: Policy) -> pd.DataFrame:
    """What changed between two policies: one row per rule added, removed or changed, and which of its fields.

    Returns:
        Columns `change` (added, removed, changed), `rule`, `severity`, `field`, `old`, `new`.
    """
    before, after = ({rule.id: rule for rule in policy.rules} for policy in (old, new))
    rows = []
    for rule_id in [*before, *(i for i in after if i not in before)]:
        rows += _diff_rule(rule_id, before.get(rule_id), after.get(rule_id))
    return pd.DataFrame(rows, columns=["change", "rule", "severity", "field", "old", "new"])


def _diff_rule(rule_id: str, old: Rule | None, new: Rule | None) -> list[tuple[str, ...]]:
    if old is None and new is not None:
        return [("added", rule_id, new.severity, "", "", new.description)]
    if new is None and old is not None:
        return [("removed", rule_id, old.severity, "", old.description, "")]
    assert old is not None and new is not None
    fields = ("description", "severity", "scope", "check")
    values = [(f, _text(getattr(old, f)), _text(getattr(new, f))) for f in fields]
    return [("changed", rule_id, new.severity, f, was, now) for f, was, now in values if was != now]


def _text(value: Any) -> str:
    return value.model_dump_json(exclude_none=True) if isinstance(value, BaseModel) else str(value)
