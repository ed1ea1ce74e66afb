"""Policy documents: rules that people read and machines check, and their digest."""

import hashlib
from collections.abc import Collection
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from realignment.policy.checks import Check, JudgedCheck, Patterns, PolicyPart
from realignment.records import Exchange, RealignmentError


class PolicyError(RealignmentError):
    """A policy document that cannot be used; the message names the rule."""


class Severity(StrEnum):
    """How severe a violation is. Any broken rule makes a response violate; severity orders reports."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Scope(PolicyPart):
    """Which exchanges a rule applies to: those that meet all conditions; without conditions, all of them.

    Attributes:
        domains: The exchange's domain (the topic column of the data) must be one of these.
        prompt: One of these patterns must occur in the prompt.
        except_prompt: None of these patterns may occur in the prompt.
    """

    domains: tuple[str, ...] | None = None
    prompt: Patterns | None = None
    except_prompt: Patterns | None = None

    @property
    def only_domain(self) -> str | None:
        """The domain that the rule applies to; None where it is any, or one of several."""
        return self.domains[0] if self.domains and len(self.domains) == 1 else None

    def covers(self, exchange: Exchange) -> bool:
        """Return whether the rule applies to this exchange."""
        return (
            (self.domains is None or exchange.domain in self.domains)
            and (self.prompt is None or self.prompt.occur_in(exchange.prompt))
            and (self.except_prompt is None or not self.except_prompt.occur_in(exchange.prompt))
        )


class Evidence(PolicyPart):
    """How well an inferred rule explains the pairs that it was inferred from (`infer_policy`).

    Attributes:
        pairs: The number of all pairs.
        support: The share of pairs whose two responses differ under the rule.
        agreement: The share of those pairs whose choice the rule predicts.
        interval: The 95 % interval of `agreement`.
    """

    pairs: int = Field(ge=1)
    support: float = Field(ge=0, le=1)
    agreement: float = Field(ge=0, le=1)
    interval: tuple[float, float]


class Behaviour(PolicyPart):
    """A request that an answer which breaks the rule would satisfy; a plain text is one without a domain.

    Attributes:
        request: What is asked for; attacks of the evaluation ask for it.
        domain: Topic of the request, as in the data; needed where the rule's scope has several.
    """

    request: str = Field(min_length=1)
    domain: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_plain_text(cls, value: Any) -> Any:
        return {"request": value} if isinstance(value, str) else value


class Rule(PolicyPart):
    """One requirement of a policy: a description for people, scope and check for machines."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    description: str = Field(min_length=1)
    severity: Severity = Severity.MEDIUM
    scope: Scope = Scope()
    check: Check
    evidence: Evidence | None = None
    behaviours: tuple[Behaviour, ...] = ()

    @model_validator(mode="after")
    def _require_domains_of_behaviours(self) -> "Rule":
        domains = self.scope.domains
        for behaviour in self.behaviours:
            domain = behaviour.domain or self.scope.only_domain
            if domains is not None and domain not in domains:
                raise ValueError(
                    f"the behaviour {behaviour.request!r} needs a `domain` of {', '.join(domains)}, for the "
                    f"rule applies to no other; found {domain or 'none'}"
                )
        return self

    def holds_for(self, exchange: Exchange) -> bool | None:
        """Return whether the exchange keeps the rule; True out of scope, None where no machine can tell."""
        return not self.scope.covers(exchange) or self.check.holds(exchange)


class Tier(PolicyPart):
    """How severe harm of some categories may be, for data with graded responses (`severity.grade_pairs`).

    Attributes:
        id: Names the tier, as a rule's id names the rule.
        description: What it allows, for people.
        severity: How severe a violation is.
        categories: Categories of harm as the data spells them; None covers every category.
        max_severity: The most severe grade that still complies; 0 allows no such harm at all.
    """

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    description: str = Field(min_length=1)
    severity: Severity = Severity.MEDIUM
    categories: tuple[str, ...] | None = None
    max_severity: int = Field(0, ge=0, le=3)

    def covers(self, categories: Collection[str]) -> bool:
        """Return whether a response with these categories of harm is in this tier."""
        return bool(categories) and (
            self.categories is None or not set(self.categories).isdisjoint(categories)
        )


class Policy(PolicyPart):
    """A named and versioned set of rules and tiers.

    Attributes:
        name: Names the policy across versions.
        version: Names this version of it.
        text: The policy in prose, for people and LLM judges.
        rules: Requirements; a policy without any can only be judged by labels, or by its text.
        tiers: Limits on graded harm.
    """

    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    text: str = Field(min_length=1)
    rules: tuple[Rule, ...] = ()
    tiers: tuple[Tier, ...] = ()

    @model_validator(mode="after")
    def _require_unique_ids(self) -> "Policy":
        ids = [part.id for part in self.parts]
        repeated = sorted({rule_id for rule_id in ids if ids.count(rule_id) > 1})
        if repeated:
            raise ValueError(f"rule ids must be unique, repeated: {', '.join(repeated)}")
        return self

    @property
    def parts(self) -> "tuple[Rule | Tier, ...]":
        """Everything that has an id: the rules, then the tiers."""
        return (*self.rules, *self.tiers)

    @property
    def full_name(self) -> str:
        """Name and version; labels and people's verdicts name the policy by it."""
        return f"{self.name}-{self.version}"

    @cached_property
    def digest(self) -> str:
        """The sha256 of the content, independent of layout, comments and key order of the file.

        Evidence and behaviours are left out: they say where a rule comes from and how it is attacked, not
        what it requires.
        """
        content = self.model_dump_json(exclude={"rules": {"__all__": {"evidence", "behaviours"}}})
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def fingerprint(self) -> str:
        """The digest for tables that people fill in: short, and never read as a number by a spreadsheet."""
        return f"sha256:{self.digest[:12]}"

    @property
    def checked_rules(self) -> tuple[Rule, ...]:
        """The rules that a machine can check, in the policy's order."""
        return tuple(rule for rule in self.rules if not isinstance(rule.check, JudgedCheck))

    def broken_rules(self, exchange: Exchange) -> tuple[str, ...]:
        """Return the ids of the rules that the exchange breaks, in the policy's order."""
        return tuple(rule.id for rule in self.rules if rule.holds_for(exchange) is False)

    def open_rules(self, exchange: Exchange) -> tuple[str, ...]:
        """Return the ids of the rules that apply to the exchange and that no machine can check."""
        return tuple(rule.id for rule in self._judged_rules if rule.scope.covers(exchange))

    @cached_property
    def _judged_rules(self) -> tuple[Rule, ...]:
        return tuple(rule for rule in self.rules if isinstance(rule.check, JudgedCheck))


def parse_policy(document: Any, source: str) -> Policy:
    """Build a policy from its parsed YAML.

    Args:
        document: What `yaml.safe_load` returned.
        source: Names the document in error messages.

    Returns:
        The validated policy.

    Raises:
        PolicyError: The document is not a policy; the message lists every mistake with the rule it is in.
    """
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
    """Say where a mistake is, naming a rule by its id rather than by its position."""
    path: list[str] = []
    rules = document.get("rules")
    for part in details["loc"]:
        if part == "rules":
            continue
        # The first number is the position of the rule; later ones are positions inside it.
        if isinstance(part, int) and isinstance(rules, list) and not path:
            rule = rules[part] if part < len(rules) else None
            path.append(f"rule {rule.get('id', part) if isinstance(rule, dict) else part}")
        else:
            path.append(str(part))
    return f"{' → '.join(path) or 'document'}: {details['msg']} (found {details['input']!r})"[:400]


def read_policy(path: Path) -> Policy:
    """Load and validate a policy file.

    Args:
        path: A YAML file.

    Returns:
        The validated policy.

    Raises:
        PolicyError: There is no such file, it is not YAML, or it is not a policy.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        names = ", ".join(sorted(file.stem for file in path.parent.glob("*.yml"))) or "none"
        hint = " `kedro run --pipelines infer_policy` writes it." if path.stem == "inferred_policy" else ""
        raise PolicyError(f"No policy file {path}. Policies in that folder: {names}.{hint}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path} is not readable as UTF-8 YAML: {error}") from error
    return parse_policy(document, source=path.name)
