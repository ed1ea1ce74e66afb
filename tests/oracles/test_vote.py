"""A vote gives the majority's verdict, or none; a cascade asks the next only where one is unsure."""

import pytest
from made_up_pairs import POLICY, ScriptedOracle

from realignment.oracles.cascade import CascadeOracle
from realignment.oracles.vote import VoteOracle
from realignment.records import Exchange


def judge_responses(oracle, *responses):
    return oracle([Exchange("?", response) for response in responses], POLICY)


def ballot(*verdicts, min_agreement=0.5):
    oracles = tuple(ScriptedOracle({"x": verdict}) for verdict in verdicts)
    return judge_responses(VoteOracle(oracles, min_agreement), "x")[0]


@pytest.mark.parametrize(
    ("votes", "complies", "agreement"),
    [
        ((True, True, False), True, 2 / 3),
        ((False, False, True), False, 2 / 3),
        ((True, True, True), True, 1.0),
        ((True,), True, 1.0),
        ((True, True, None), True, 2 / 3),
        ((True, False), None, 0.0),
        ((True, None), None, 0.0),
        ((None, None, None), None, 0.0),
        ((True, False, None, True, None), None, 0.0),
    ],
)
def test_the_majority_of_all_votes_decides(votes, complies, agreement):
    judgment = ballot(*votes)
    assert judgment.complies is complies
    assert judgment.confidence == pytest.approx(agreement)
    assert judgment.oracle == "vote"


def test_too_little_agreement_is_no_verdict():
    assert ballot(True, True, False, min_agreement=0.6).complies is True
    judgment = ballot(True, True, False, min_agreement=0.7)
    assert (judgment.complies, judgment.confidence) == (None, 0.0)
    assert judgment.reason == "no majority: 2 complies, 1 violates, 0 unscored"


def test_the_broken_rules_are_those_of_the_majority():
    assert ballot(False, False, True).rules_broken == ("rule-a", "rule-b")
    assert ballot(True, False, True).rules_broken == ()


def test_a_cascade_asks_the_next_only_where_one_is_unsure():
    cheap = ScriptedOracle({"sure": (True, 0.95), "unsure": (True, 0.6), "wrong": (False, 0.5)})
    strong = ScriptedOracle({"unsure": (False, 0.7), "wrong": True, "silent": False}, name="strong")
    cascade = CascadeOracle((cheap, strong), min_confidence=0.9)
    judgments = judge_responses(cascade, "sure", "unsure", "silent", "wrong")
    assert [j.complies for j in judgments] == [True, False, False, True]
    assert [j.oracle for j in judgments] == ["scripted", "strong", "strong", "strong"]
    assert [e.response for e in strong.asked] == ["unsure", "silent", "wrong"]
    assert cascade.exchange_counts == [4, 3]
    judge_responses(cascade, "sure")
    assert cascade.exchange_counts == [5, 3]


def test_what_the_last_oracle_does_not_know_stays_unscored():
    cascade = CascadeOracle((ScriptedOracle({}), ScriptedOracle({})), min_confidence=0.9)
    assert [j.complies for j in judge_responses(cascade, "x", "y")] == [None, None]


def test_nothing_asked_is_nothing_answered():
    assert judge_responses(VoteOracle((ScriptedOracle({}),))) == []
    assert judge_responses(CascadeOracle((ScriptedOracle({}), ScriptedOracle({})), 0.9)) == []
