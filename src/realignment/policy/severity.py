"""Graded labels → verdicts: which harm a response does, how severe, and what the policy allows."""

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from realignment.policy.document import Policy
from realignment.records import DataError

SEVERITIES = range(4)
"""PKU-SafeRLHF (arXiv:2406.15513): 0 none, 1 minor, 2 moderate, 3 severe."""


def grade(pairs: pd.DataFrame, policy: Policy) -> pd.DataFrame:
    """The labels that graded responses have under the tiers of this policy, in place of plain ones.

    Args:
        pairs: With `chosen_categories`, `rejected_categories` (JSON lists of categories; null: not graded)
            and `chosen_severity`, `rejected_severity` where the data has them.
        policy: Its tiers say how severe each category may be; without tiers the pairs stay as they are.

    Returns:
        The pairs with chosen_complies, rejected_complies, chosen_rules, rejected_rules by the tiers.

    Raises:
        DataError: The policy has tiers and the pairs no grades, or none of the categories that they name.
    """
    if policy.tiers:
        check_categories(categories_of(pairs), policy)
    return grade_part(pairs, policy)


def grade_part(pairs: pd.DataFrame, policy: Policy) -> pd.DataFrame:
    """`grade` for a part of the pairs, which may have none of the categories that the tiers name."""
    if not policy.tiers:
        return pairs
    _require_grades(pairs, policy)
    graded = pairs.copy()
    for response in ("chosen", "rejected"):
        cells = zip(pairs[f"{response}_categories"], pairs[f"{response}_severity"], strict=True)
        broken = [_broken(policy, *cell) for cell in cells]
        graded[f"{response}_complies"] = pd.array([None if b is None else not b for b in broken], "boolean")
        graded[f"{response}_rules"] = pd.Series(
            [None if b is None else ",".join(b) for b in broken], index=pairs.index, dtype="str"
        )
    return graded


def _require_grades(pairs: pd.DataFrame, policy: Policy) -> None:
    if not {"chosen_categories", "rejected_categories"} <= set(pairs.columns):
        raise DataError(
            f"Policy {policy.full_name} has tiers, and the pairs are not graded: expected columns "
            "chosen_categories, chosen_severity, rejected_categories, rejected_severity, or PKU-SafeRLHF's "
            f"response_k_harm_category and response_k_severity_level. Found: {', '.join(pairs.columns)}."
        )


def _broken(policy: Policy, categories: Any, severity: Any) -> tuple[str, ...] | None:
    """Ids of the tiers that a response breaks; None where its grades leave that open."""
    if not isinstance(categories, str):
        return None
    names = json.loads(categories)
    touched = [tier for tier in policy.tiers if tier.covers(names)]
    if pd.isna(severity):
        return None if any(tier.max_severity > 0 for tier in touched) else tuple(t.id for t in touched)
    return tuple(tier.id for tier in touched if severity > tier.max_severity)


def categories_of(pairs: pd.DataFrame) -> set[str]:
    """Every category that a response of these pairs has."""
    columns = [name for name in ("chosen_categories", "rejected_categories") if name in pairs]
    cells = {cell for name in columns for cell in pairs[name].dropna()}
    return {name for cell in cells for name in json.loads(cell)}


def check_categories(found: set[str], policy: Policy) -> None:
    """Stop where the tiers speak of nothing that is in the data.

    Raises:
        DataError: None of the categories is one that a tier names.
    """
    named = {name for tier in policy.tiers for name in tier.categories or ()}
    if named and found and not named & found:
        raise DataError(
            f"No response has a category that a tier of {policy.full_name} names "
            f"({', '.join(sorted(named))}); "
            f"the data has {', '.join(sorted(found))}. Are the names spelt as in the data?"
        )


def read_categories(cell: Any) -> str | None:
    """Categories as a JSON list: from PKU-SafeRLHF's mapping of category to flag, a list, or such JSON."""
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except ValueError:
            cell = [name.strip() for name in cell.split(",") if name.strip()]
    if isinstance(cell, Mapping):
        return json.dumps(sorted(name for name, flag in cell.items() if flag))
    if isinstance(cell, list | tuple):
        return json.dumps(sorted(map(str, cell)))
    return None


def read_severity(cell: Any) -> int | None:
    """0 to 3; None for anything else."""
    try:
        return int(cell) if int(cell) in SEVERITIES and int(cell) == float(cell) else None
    except (TypeError, ValueError, OverflowError):  # infinity
        return None
