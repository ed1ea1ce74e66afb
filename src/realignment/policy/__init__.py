"""Policy documents: rules that people read and machines check, their digest, and their difference."""

from realignment.policy.difference import diff_policies
from realignment.policy.document import (
    Behaviour,
    Evidence,
    Policy,
    PolicyError,
    Rule,
    Scope,
    Severity,
    Tier,
    parse_policy,
    read_policy,
)

__all__ = [
    "Behaviour",
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
