"""A policy as a document: rules that people read and machines check, its digest, the difference of two."""

from realignment.policy.document import (
    Evidence,
    Policy,
    PolicyError,
    Rule,
    Scope,
    Severity,
    Tier,
    diff_policies,
    parse_policy,
    read_policy,
)

__all__ = [
    "Evidence",
    "Policy",
    "PolicyError",
    "Rule",
    "Scope",
    "Severity",
    "Tier",
    "diff_policies",
    "parse_policy",
    "read_policy",
]
