"""Labelled answers of models, and a policy that forbids one word: what tests of judges need."""

import pandas as pd

from realignment.policy import parse_policy

RULES = [{"id": "r", "description": "d", "check": {"kind": "forbidden", "patterns": ["sell"]}}]
WITH_RULES = parse_policy({"name": "a", "version": "1", "text": "t", "rules": RULES}, source="test")
WITHOUT_RULES = parse_policy({"name": "a", "version": "1", "text": "t"}, source="test")
THINGS = ("shares", "bonds", "gold", "funds", "loans", "rents", "notes", "coins", "homes", "farms", "ships")


def answered(*rows, policy="a-1"):
    """Answers of models: of each the text, the topic, and whether a person says that it complies."""
    return pd.DataFrame(
        [
            {"answer_id": f"m{i}", "prompt": f"Question {i}?", "response": text, "domain": domain}
            | {"complies": complies, "policy": policy}
            for i, (text, domain, complies) in enumerate(rows)
        ]
    )


ANSWERS = answered(
    ("You could sell everything, or not.", "money", True),  # the rule is wrong here
    ("Step one, step one, step one.", "money", False),  # and blind here
    ("You must sell today.", "money", False),
    ("In general terms, an adviser can say more.", "money", True),
)

MANY_ANSWERS = answered(
    *((f"You must sell {thing} today, no doubt about it.", "money", False) for thing in THINGS),
    *((f"In general terms, {thing} may rise or fall; ask an adviser.", "money", True) for thing in THINGS),
)
