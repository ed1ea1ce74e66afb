"""A policy as a document: rules that people read and machines check, its digest, the difference of two."""

import hashlib
from collections.abc import Collection
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator

from realignment.policy.checks import Check, Document, Judged, Patterns
from realignment.records import Exchange, RealignmentError


class PolicyError(RealignmentError):
    """A policy document that cannot be used; the message names the rule."""


class Severity(StrEnum):
    """How grave a violation is. Any broken rule makes a response violate; severity orders reports."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Scope(Document):
    """Which exchanges a rule applies to: all conditions given must hold; none given: every exchange.

    ``domains`` reads the data's own topic column; a pattern of ``prompt`` must occur in the prompt, and none
    of ``except_prompt``.
    """

    domains: tuple[str, ...] | None = None
    prompt: Patterns | None = None
    except_prompt: Patterns | None = None

    def covers(self, exchange: Exchange) -> bool:
        """Whether the rule has anything to say about this exchange."""
        return (
            (self.domains is None or exchange.domain in self.domains)
            and (self.prompt is None or self.prompt.occur_in(exchange.prompt))
            and (self.except_prompt is None or not self.except_prompt.occur_in(exchange.prompt))
        )


class Evidence(Document):
    """What an inferred rule rests on, in the pairs that it was inferred from (`infer_policy`).

    ``support`` is the share of pairs that it tells apart, ``agreement`` the share of those whose choice it
    predicts, with its 95 % interval; ``pairs`` is the number of all pairs.
    """

    pairs: int = Field(ge=1)
    support: float = Field(ge=0, le=1)
    agreement: float = Field(ge=0, le=1)
    interval: tuple[float, float]


class Rule(Document):
    """One requirement of a policy, for people (description) and for machines (scope, check)."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    description: str = Field(min_length=1)
    severity: Severity = Severity.MEDIUM
    scope: Scope = Scope()
    check: Check
    evidence: Evidence | None = None

    def kept_by(self, exchange: Exchange) -> bool | None:
        """Whether the exchange keeps to this rule; out of scope counts as kept, None: no machine can tell."""
        return not self.scope.covers(exchange) or self.check.holds(exchange)


class Tier(Document):
    """How severe harm of some categories may be, for data whose responses are graded (`severity.grade`)."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    description: str = Field(min_length=1)
    severity: Severity = Severity.MEDIUM
    categories: tuple[str, ...] | None = None
    """As the data spells them; None: every category."""
    max_severity: int = Field(0, ge=0, le=3)
    """The most severe grade that still complies; 0: such harm may not occur at all."""

    def covers(self, categories: Collection[str]) -> bool:
        """Whether a response of these categories is in this tier."""
        return bool(categories) and (
            self.categories is None or not set(self.categories).isdisjoint(categories)
        )


class Policy(Document):
    """A named, versioned set of rules; `text` is for people and LLM judges. No rules: for labels only."""

    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    text: str = Field(min_length=1)
    rules: tuple[Rule, ...] = ()
    tiers: tuple[Tier, ...] = ()

    @model_validator(mode="after")
    def _unique_rule_ids(self) -> "Policy":
        ids = [part.id for part in self.parts]
        if repeated := sorted({rule_id for rule_id in ids if ids.count(rule_id) > 1}):
            raise ValueError(f"rule ids must be unique, repeated: {', '.join(repeated)}")
        return self

    @property
    def parts(self) -> "tuple[Rule | Tier, ...]":
        """Rules, then tiers."""
        return (*self.rules, *self.tiers)

    @property
    def full_name(self) -> str:
        """Name and version, under which labels and people's verdicts are given."""
        return f"{self.name}-{self.version}"

    @cached_property
    def digest(self) -> str:
        """sha256 over the content, independent of layout, comments and key order of the file.

        Evidence is left out: it says where a rule comes from, not what it asks for.
        """
        content = self.model_dump_json(exclude={"rules": {"__all__": {"evidence"}}})
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def fingerprint(self) -> str:
        """The digest as people's tables carry it: short, and no number to a spreadsheet."""
        return f"sha256:{self.digest[:12]}"

    @property
    def checked_rules(self) -> tuple[Rule, ...]:
        """The rules that a machine can check by itself."""
        return tuple(rule for rule in self.rules if not isinstance(rule.check, Judged))

    def broken_rules(self, exchange: Exchange) -> tuple[str, ...]:
        """Ids of the rules that the exchange breaks, in the policy's order."""
        return tuple(rule.id for rule in self.rules if rule.kept_by(exchange) is False)

    def open_rules(self, exchange: Exchange) -> tuple[str, ...]:
        """Ids of the rules that cover the exchange and that no machine can check."""
        return tuple(rule.id for rule in self._judged_rules if rule.scope.covers(exchange))

    @cached_property
    def _judged_rules(self) -> tuple[Rule, ...]:
        return tuple(rule for rule in self.rules if isinstance(rule.check, Judged))


def parse_policy(document: Any, source: str) -> Policy:
    """A policy from its parsed YAML; every mistake at once, each with the rule it is in."""
    if not isinstance(document, dict):
        raise PolicyError(
            f"{source}: expected a mapping with name, version, text and rules, found "
            f"{type(document).__name__}. Write it as `conf/base/policies/assistant-v2.yml` is."
        )
    try:
        return TypeAdapter(Policy).validate_python(document)
    except ValidationError as error:
        lines = [_describe(document, details) for details in error.errors()]
        raise PolicyError(
            f"{source} is not a valid policy:\n" + "\n".join(f"- {line}" for line in lines)
        ) from error


def _describe(document: dict[str, Any], details: Any) -> str:
    where: list[str] = []
    place = document.get("rules")
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
        hint = " `kedro run --pipelines infer_policy` writes it." if path.stem == "inferred_policy" else ""
        raise PolicyError(f"No policy file {path}. Policies in that folder: {known}.{hint}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path} is not readable as UTF-8 YAML: {error}") from error
    return parse_policy(document, source=path.name)


def diff_policies(old: Policy, new: Policy) -> pd.DataFrame:
    """What changed between two policies: a row per rule added or removed, and per changed field of a rule.

    Returns:
        Columns `change` (added, removed, changed), `rule`, `severity`, `field`, `old`, `new`.
    """
    before, after = ({part.id: part for part in policy.parts} for policy in (old, new))
    rows = []
    for rule_id in [*before, *(i for i in after if i not in before)]:
        rows += _diff_rule(rule_id, before.get(rule_id), after.get(rule_id))
    return pd.DataFrame(rows, columns=["change", "rule", "severity", "field", "old", "new"])


def _diff_rule(rule_id: str, old: Rule | Tier | None, new: Rule | Tier | None) -> list[tuple[str, ...]]:
    if old is None and new is not None:
        return [("added", rule_id, new.severity, "", "", new.description)]
    if old is not None and new is None:
        return [("removed", rule_id, old.severity, "", old.description, "")]
    if old is None or new is None:
        return []
    # What speaks for a rule is not what it asks.
    names = (*type(old).model_fields, *type(new).model_fields)
    fields = [name for name in names if name not in ("id", "evidence")]
    values = [(f, *(_text(getattr(part, f, "")) for part in (old, new))) for f in dict.fromkeys(fields)]
    return [("changed", rule_id, new.severity, f, was, now) for f, was, now in values if was != now]


def _text(value: Any) -> str:
    return value.model_dump_json(exclude_none=True) if isinstance(value, BaseModel) else str(value)
