"""The rules oracle says what the policy's rules say."""

import pytest

from realignment.oracles import Oracle
from realignment.oracles.rules import NoRulesError, RulesOracle
from realignment.policy import Policy, parse_policy
from realignment.records import Exchange

RULES = [
    {"id": "short", "description": "Short.", "check": {"kind": "length", "max_words": 3}},
    {
        "id": "no-sell", "description": "No order.", "scope": {"domains": ["money"]},
        "check": {"kind": "forbidden", "patterns": ["sell"]},
    },
]  # fmt: skip
POLICY = parse_policy({"name": "a", "version": "1", "text": "t", "rules": RULES}, source="test")


def test_a_response_violates_where_it_breaks_any_rule_that_covers_it():
    exchanges = [
        Exchange("Now?", "Hold on.", "money"),
        Exchange("Now?", "Sell it all now.", "money"),
        Exchange("Now?", "Sell it.", "law"),
        Exchange("Now?", "", None),
    ]
    judgments = RulesOracle()(exchanges, POLICY)
    assert [j.complies for j in judgments] == [True, False, True, True]
    assert [j.rules_broken for j in judgments] == [(), ("short", "no-sell"), (), ()]
    assert judgments[1].reason == "breaks short, no-sell"
    assert {(j.confidence, j.oracle) for j in judgments} == {(1.0, "rules")}


def test_a_policy_without_rules_cannot_be_checked():
    with pytest.raises(NoRulesError, match=r"Policy a version 1 has no rules .*`judging.oracle: labels`"):
        RulesOracle()([], Policy(name="a", version="1", text="t"))


def test_nothing_asked_is_nothing_answered():
    oracle: Oracle = RulesOracle()
    assert oracle([], POLICY) == []


def test_what_no_machine_can_check_is_unscored_unless_another_rule_is_broken():
    judged = {
        "id": "kind",
        "description": "Kind.",
        "scope": {"domains": ["money"]},
        "check": {"kind": "judged"},
    }
    policy = parse_policy(
        {"name": "a", "version": "1", "text": "t", "rules": [*RULES, judged]}, source="test"
    )
    exchanges = [
        Exchange("Now?", "Wait.", "money"),
        Exchange("Now?", "Sell.", "money"),
        Exchange("Now?", "Wait."),
    ]
    unknown, broken, outside = RulesOracle()(exchanges, policy)
    assert (unknown.complies, unknown.confidence) == (None, 0.0)
    assert unknown.reason == "no machine can check kind: ask an oracle that reads the policy"
    assert (broken.complies, broken.rules_broken) == (False, ("no-sell",))
    assert outside.complies is True


def test_a_policy_of_judged_rules_alone_cannot_be_checked():
    judged = {"id": "kind", "description": "Kind.", "check": {"kind": "judged"}}
    with pytest.raises(NoRulesError):
        RulesOracle()(
            [], parse_policy({"name": "a", "version": "1", "text": "t", "rules": [judged]}, source="t")
        )
