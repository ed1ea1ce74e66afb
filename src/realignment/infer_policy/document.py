"""Principles → a policy document: each a rule with its evidence, and a check where choices support one."""

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
"""Quantile of the chosen responses' lengths that a derived limit leaves out."""

TEXT = (
    "Inferred from {pairs} pairs: of two responses to a prompt, the one that fits these principles better "
    "was chosen. How often each had a say, and was right, is its evidence."
)


def write_document(principles: pd.DataFrame, pairs: pd.DataFrame, *, min_kept: float, version: str) -> str:
    """The YAML of a policy whose rules are the principles.

    Args:
        principles: `infer_policy.PRINCIPLE_COLUMNS`.
        pairs: What they were inferred from; columns chosen, rejected.
        min_kept: A check is given where at least this share of the chosen responses keeps it, and more of
            them than of the rejected ones; other rules are `judged`, for people and models that read them.
        version: Of the document; a digest of the pairs is a good one.

    Raises:
        PolicyError: A principle cannot be a rule.
    """
    rows: list[dict[str, Any]] = principles.to_dict("records")  # type: ignore[assignment]
    document = {
        "name": "inferred",
        "version": version,
        "text": "\n".join([TEXT.format(pairs=len(pairs)), *(f"- {row['principle']}" for row in rows)]) + "\n",
        "rules": [_rule(row, pairs, min_kept) for row in rows],
    }
    parse_policy(document, source="the inferred policy")
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, as a person would write them."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def read_document(text: str) -> Policy:
    """The policy that `write_document` wrote."""
    return parse_policy(yaml.safe_load(text), source="the inferred policy")


def _rule(row: Mapping[str, Any], pairs: pd.DataFrame, min_kept: float) -> dict[str, Any]:
    low, high = round(float(row["low"]), 4), round(float(row["high"]), 4)
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
    """A check that the chosen responses keep, and more often than the rejected; None where there is none."""
    name, _, direction = principle.rpartition("-")
    pattern = _PATTERNS.get(name) or (rf"\b{name[5:]}\b" if name.startswith("word-") else None)
    check: dict[str, Any]
    if name == LENGTH.name:
        words = [len(text.split()) for text in pairs["chosen"]]
        if direction == "more":
            check = {"kind": "length", "min_words": int(np.floor(np.quantile(words, _MARGIN)))}
        else:
            check = {"kind": "length", "max_words": max(1, int(np.ceil(np.quantile(words, 1 - _MARGIN))))}
    elif pattern is not None:
        check = {"kind": "required" if direction == "more" else "forbidden", "patterns": [pattern]}
    else:
        return None
    rule = {"id": "candidate", "description": "-", "check": check}
    policy = parse_policy(
        {"name": "-", "version": "-", "text": "-", "rules": [rule]}, source="a derived check"
    )
    kept = {side: _share_kept(policy, pairs[side]) for side in ("chosen", "rejected")}
    return check if kept["chosen"] >= min_kept and kept["chosen"] > kept["rejected"] else None


def _share_kept(policy: Policy, responses: pd.Series) -> float:
    return float(np.mean([not policy.broken_rules(Exchange("", text)) for text in responses]))
