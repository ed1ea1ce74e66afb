"""Graded labels → verdicts: which harm a response does, how severe, and what the policy allows."""

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from realignment.policy.document import Policy
from realignment.records import DataError

SEVERITIES = range(4)
"""Levels of PKU-SafeRLHF (arXiv:2406.15513): 0 none, 1 minor, 2 moderate, 3 severe."""


def grade_pairs(pairs: pd.DataFrame, policy: Policy) -> pd.DataFrame:
    """Label the responses of graded pairs by the tiers of a policy; these labels replace those of the data.

    Args:
        pairs: Pairs with `chosen_categories`, `rejected_categories` (JSON lists of categories; null: not
            graded) and `chosen_severity`, `rejected_severity` where the data has them.
        policy: Its tiers say how severe each category may be; without tiers the pairs stay as they are.

    Returns:
        The pairs with chosen_complies, rejected_complies, chosen_rules, rejected_rules by the tiers.

    Raises:
        DataError: The policy has tiers and the pairs no grades, or none of the categories that they name.
    """
    if policy.tiers:
        check_categories(list_categories(pairs), policy)
    return grade_batch(pairs, policy)


def grade_batch(pairs: pd.DataFrame, policy: Policy) -> pd.DataFrame:
    """Grade some of the pairs, as `grade_pairs` does; a batch may have none of the tiers' categories."""
    if not policy.tiers:
        return pairs
    _require_grades(pairs, policy)
    graded = pairs.copy()
    for response in ("chosen", "rejected"):
        cells = zip(pairs[f"{response}_categories"], pairs[f"{response}_severity"], strict=True)
        # Per pair: ids of the broken tiers, none where the response complies, None where it is open.
        broken_tiers = [_find_broken_tiers(policy, *cell) for cell in cells]
        complies = [None if ids is None else not ids for ids in broken_tiers]
        rules = [None if ids is None else ",".join(ids) for ids in broken_tiers]
        graded[f"{response}_complies"] = pd.array(complies, "boolean")
        graded[f"{response}_rules"] = pd.Series(rules, index=pairs.index, dtype="str")
    return graded


def _require_grades(pairs: pd.DataFrame, policy: Policy) -> None:
    if not {"chosen_categories", "rejected_categories"} <= set(pairs.columns):
        raise DataError(
            f"Policy {policy.full_name} has tiers, and the pairs are not graded: expected columns "
            "chosen_categories, chosen_severity, rejected_categories, rejected_severity, or PKU-SafeRLHF's "
            f"response_k_harm_category and response_k_severity_level. Found: {', '.join(pairs.columns)}."
        )


def _find_broken_tiers(policy: Policy, categories: Any, severity: Any) -> tuple[str, ...] | None:
    """Return the ids of the tiers that a response breaks; None where its grades leave that open."""
    if not isinstance(categories, str):
        return None
    names = json.loads(categories)
    tiers = [tier for tier in policy.tiers if tier.covers(names)]
    if pd.isna(severity):
        # Without a severity, only tiers that allow no harm at all can be decided.
        return None if any(tier.max_severity > 0 for tier in tiers) else tuple(tier.id for tier in tiers)
    return tuple(tier.id for tier in tiers if severity > tier.max_severity)


def list_categories(pairs: pd.DataFrame) -> set[str]:
    """Return every category of harm that a response of these pairs has."""
    cells: set[str] = set()
    for column in ("chosen_categories", "rejected_categories"):
        if column in pairs:
            cells.update(pairs[column].dropna())
    categories: set[str] = set()
    for cell in cells:
        categories.update(json.loads(cell))
    return categories


def check_categories(categories: set[str], policy: Policy) -> None:
    """Make sure that the tiers name at least one category that is in the data.

    Args:
        categories: The categories of the data, from `list_categories`.
        policy: The policy whose tiers name categories; a tier without names covers all of them.

    Raises:
        DataError: None of the categories is one that a tier names.
    """
    tier_categories: set[str] = set()
    for tier in policy.tiers:
        tier_categories.update(tier.categories or ())
    if tier_categories and categories and not tier_categories & categories:
        raise DataError(
            f"No response has a category that a tier of {policy.full_name} names "
            f"({', '.join(sorted(tier_categories))}); "
            f"the data has {', '.join(sorted(categories))}. Are the names spelt as in the data?"
        )


def read_categories(cell: Any) -> str | None:
    """Return categories as a sorted JSON list; None for a cell that cannot be read.

    Args:
        cell: PKU-SafeRLHF's mapping of category to flag, a list, JSON of either, or names with commas.
    """
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
    """Return a severity from 0 to 3; None for anything else."""
    try:
        return int(cell) if int(cell) in SEVERITIES and int(cell) == float(cell) else None
    except (TypeError, ValueError, OverflowError):  # infinity
        return None
