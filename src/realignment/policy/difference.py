"""The difference of two policies, rule by rule."""

from typing import Any

import pandas as pd
from pydantic import BaseModel

from realignment.policy.document import Policy, Rule, Tier


def diff_policies(old: Policy, new: Policy) -> pd.DataFrame:
    """List what changed between two policies.

    Args:
        old: The policy before.
        new: The policy after.

    Returns:
        A row per rule (or tier) added or removed, and per changed field of one. Columns `change` (added,
        removed, changed), `rule`, `severity`, `field`, `old`, `new`.

    Example:
        >>> from realignment.policy.document import parse_policy
        >>> rule = {"id": "short", "description": "Short.", "check": {"kind": "length", "max_words": 60}}
        >>> policy = {"name": "shop", "version": "1", "text": "Be short.", "rules": [rule]}
        >>> old = parse_policy(policy, source="old.yml")
        >>> stricter = [rule | {"severity": "high"}]
        >>> new = parse_policy(policy | {"version": "2", "rules": stricter}, source="new.yml")
        >>> diff_policies(old, new)[["change", "rule", "field", "old", "new"]].to_dict("records")
        [{'change': 'changed', 'rule': 'short', 'field': 'severity', 'old': 'medium', 'new': 'high'}]
    """
    old_parts = {part.id: part for part in old.parts}
    new_parts = {part.id: part for part in new.parts}
    rows = []
    for rule_id in dict.fromkeys([*old_parts, *new_parts]):
        rows += _diff_rule(rule_id, old_parts.get(rule_id), new_parts.get(rule_id))
    return pd.DataFrame(rows, columns=["change", "rule", "severity", "field", "old", "new"])


def _diff_rule(rule_id: str, old: Rule | Tier | None, new: Rule | Tier | None) -> list[tuple[str, ...]]:
    if old is None and new is not None:
        return [("added", rule_id, new.severity, "", "", new.description)]
    if old is not None and new is None:
        return [("removed", rule_id, old.severity, "", old.description, "")]
    if old is None or new is None:
        return []
    # Fields of both kinds, for a rule may have become a tier.
    fields = dict.fromkeys([*type(old).model_fields, *type(new).model_fields])
    changes: list[tuple[str, ...]] = []
    for name in fields:
        if name in ("id", "evidence", "behaviours"):  # the last two do not say what the rule requires
            continue
        old_text = _to_text(getattr(old, name, ""))
        new_text = _to_text(getattr(new, name, ""))
        if old_text != new_text:
            changes.append(("changed", rule_id, new.severity, name, old_text, new_text))
    return changes


def _to_text(value: Any) -> str:
    return value.model_dump_json(exclude_none=True) if isinstance(value, BaseModel) else str(value)
