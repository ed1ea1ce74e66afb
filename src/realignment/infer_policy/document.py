"""Principles → a policy document: a rule per principle, with its evidence and, if supported, a check."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import yaml

from realignment.policy import Policy, parse_policy
from realignment.policy.text_features import FEATURES, LENGTH
from realignment.records import Exchange

_PATTERNS = {feature.name.replace("_", "-"): feature.pattern for feature in FEATURES if feature.pattern}
_MARGIN = 0.1
"""Share of the chosen responses that a derived limit on their length leaves out."""

TEXT = (
    "Inferred from {pairs} pairs: of two responses to a prompt, the one that fits these principles better "
    "was chosen. How often each had a say, and was right, is its evidence."
)


def write_document(principles: pd.DataFrame, pairs: pd.DataFrame, *, min_kept: float, version: str) -> str:
    """Write a policy whose rules are the principles.

    Args:
        principles: `infer_policy.PRINCIPLE_COLUMNS`.
        pairs: The pairs that they were inferred from; columns chosen, rejected.
        min_kept: A rule gets a check where at least this share of the chosen responses passes it, and more of
            them than of the rejected ones; other rules are `judged`, for people and models that read them.
        version: The version of the document, such as a digest of the pairs.

    Returns:
        The document as YAML.

    Raises:
        PolicyError: A principle cannot be a rule.
    """
    rows: list[dict[str, Any]] = principles.to_dict("records")  # type: ignore[assignment]
    lines = [TEXT.format(pairs=len(pairs)), *(f"- {row['principle']}" for row in rows)]
    document = {
        "name": "inferred",
        "version": version,
        "text": "\n".join(lines) + "\n",
        "rules": [_build_rule(row, pairs, min_kept) for row in rows],
    }
    parse_policy(document, source="the inferred policy")  # raises where the document is no policy
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, as a person would."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def read_document(text: str) -> Policy:
    """Parse the policy that `write_document` wrote."""
    return parse_policy(yaml.safe_load(text), source="the inferred policy")


def _build_rule(row: Mapping[str, Any], pairs: pd.DataFrame, min_kept: float) -> dict[str, Any]:
    low = round(float(row["low"]), 4)
    high = round(float(row["high"]), 4)
    evidence = {
        "pairs": int(row["pairs"]),
        "support": round(float(row["support"]), 4),
        "agreement": round(float(row["agreement"]), 4),
        "interval": [low, high],
    }
    check = derive_check(str(row["id"]), pairs, min_kept=min_kept)
    return {
        "id": str(row["id"]),
        "description": str(row["principle"]),
        "severity": "medium" if low >= 0.75 else "low",
        "check": check or {"kind": "judged"},
        "evidence": evidence,
    }


def derive_check(principle: str, pairs: pd.DataFrame, *, min_kept: float) -> dict[str, Any] | None:
    """Derive a check from a principle about a feature, if the choices support one.

    Args:
        principle: The id of the principle: a feature, then more or less.
        pairs: The pairs that it was inferred from; columns chosen, rejected.
        min_kept: Share of the chosen responses that must pass the check.

    Returns:
        The check as a policy file has it; None where the principle has no feature, or too few of the chosen
        responses pass, or not more of them than of the rejected ones.
    """
    name, _, direction = principle.rpartition("-")
    check = _propose_check(name, direction, pairs["chosen"])
    if check is None:
        return None
    rule = {"id": "candidate", "description": "-", "check": check}
    policy = parse_policy(
        {"name": "-", "version": "-", "text": "-", "rules": [rule]}, source="a derived check"
    )
    chosen_share = _measure_share_kept(policy, pairs["chosen"])
    rejected_share = _measure_share_kept(policy, pairs["rejected"])
    return check if chosen_share >= min_kept and chosen_share > rejected_share else None


def _propose_check(feature: str, direction: str, chosen: pd.Series) -> dict[str, Any] | None:
    """Return a check for more or less of a feature; None where no pattern counts the feature."""
    if feature == LENGTH.name:
        words = [len(text.split()) for text in chosen]
        # A limit that all but a tenth of the chosen responses keep.
        if direction == "more":
            return {"kind": "length", "min_words": int(np.floor(np.quantile(words, _MARGIN)))}
        return {"kind": "length", "max_words": max(1, int(np.ceil(np.quantile(words, 1 - _MARGIN))))}
    pattern = _PATTERNS.get(feature)
    if feature.startswith("word-"):
        pattern = rf"\b{feature.removeprefix('word-')}\b"
    if pattern is None:
        return None
    return {"kind": "required" if direction == "more" else "forbidden", "patterns": [pattern]}


def _measure_share_kept(policy: Policy, responses: pd.Series) -> float:
    """Return the share of responses that break no rule of the policy."""
    return float(np.mean([not policy.broken_rules(Exchange("", text)) for text in responses]))
