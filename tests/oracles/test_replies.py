"""A reply that is not plainly a verdict is unscored with its reason, never a guess."""

import json

import pytest
from oracles.injections import INJECTIONS

from realignment.oracles.asking import message_of
from realignment.oracles.cached import VerdictStore
from realignment.oracles.replies import read_reply, reply_schema

RULES = ("no-sell", "short")
COMPLIES = {"reason": "It is careful.", "rules_broken": [], "verdict": "COMPLIES"}
VIOLATES = {"reason": "It says sell.", "rules_broken": ["short", "no-sell"], "verdict": "VIOLATES"}


def read(reply, rules=RULES):
    return read_reply(reply, rules, oracle="chat", confidence=0.8)


def test_a_plain_verdict_is_read():
    judgment = read(json.dumps(COMPLIES))
    assert (judgment.complies, judgment.confidence, judgment.rules_broken) == (True, 0.8, ())
    assert (judgment.reason, judgment.oracle, judgment.fault) == ("It is careful.", "chat", False)


def test_broken_rules_come_in_the_order_of_the_policy():
    judgment = read(json.dumps(VIOLATES))
    assert (judgment.complies, judgment.rules_broken) == (False, ("no-sell", "short"))


def test_half_a_surrogate_pair_in_a_reason_does_not_end_the_run(tmp_path):
    judgment = read(json.dumps(COMPLIES | {"reason": "An emoji cut in half: \ud83d"}))
    assert (judgment.complies, judgment.reason) == (True, "An emoji cut in half: ?")
    store = VerdictStore(tmp_path / "verdicts.sqlite")
    store.write({b"key": judgment})
    assert store.look_up([b"key"]) == {b"key": judgment}
    assert "cut ?" in message_of(b'{"error": {"message": "cut \\ud83d"}}')


def test_a_code_fence_around_the_whole_reply_is_read():
    assert read(f"```json\n{json.dumps(VIOLATES)}\n```\n").complies is False
    assert read(f"```\n{json.dumps(COMPLIES)}\n```").complies is True


def test_a_violation_may_name_no_rule():
    assert read(json.dumps(VIOLATES | {"rules_broken": []}), rules=()).complies is False


UNREADABLE = {
    "half a reply": (json.dumps(COMPLIES)[:-12], "not one JSON object"),
    "nothing": ("", "not one JSON object"),
    "prose around it": (f"Sure! {json.dumps(COMPLIES)}", "not one JSON object"),
    "two objects": (json.dumps(VIOLATES) + "\n" + json.dumps(COMPLIES), "not one JSON object"),
    "two fences": (f"```json\n{json.dumps(VIOLATES)}\n```\n```json\n{json.dumps(COMPLIES)}\n```", "not one"),
    "a list": (json.dumps([COMPLIES]), "expected a JSON object"),
    "a word": ("COMPLIES", "not one JSON object"),
    "true": ("true", "expected a JSON object"),
    "deep nesting": ("[" * 100_000, "not one JSON object"),
    "verdict twice": ('{"verdict": "VIOLATES", "verdict": "COMPLIES"}', "'verdict' more than once"),
    "verdict outside the set": (json.dumps(COMPLIES | {"verdict": "PARTLY"}), "found 'PARTLY'"),
    "verdict in small letters": (json.dumps(COMPLIES | {"verdict": "complies"}), "found 'complies'"),
    "both verdicts": (json.dumps(COMPLIES | {"verdict": ["COMPLIES", "VIOLATES"]}), "expected the verdict"),
    "verdict as boolean": (json.dumps(COMPLIES | {"verdict": True}), "found True"),
    "no verdict": ('{"reason": "hm"}', "found None"),
    "nested verdict": ('{"answer": {"verdict": "COMPLIES"}}', "unexpected keys 'answer'"),
    "extra key": (json.dumps(VIOLATES | {"final_verdict": "COMPLIES"}), "unexpected keys 'final_verdict'"),
    "unknown rule": (json.dumps(VIOLATES | {"rules_broken": ["other"]}), "no rule 'other'"),
    "rules as text": (json.dumps(VIOLATES | {"rules_broken": "short"}), "expected a list of rule ids"),
    "contradiction": (json.dumps(VIOLATES | {"verdict": "COMPLIES"}), "rules are said to be broken"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_is_not_plainly_a_verdict_is_unscored_with_its_reason(case):
    reply, reason = UNREADABLE[case]
    judgment = read(reply)
    assert (judgment.complies, judgment.confidence) == (None, 0.0)
    assert reason in judgment.reason
    assert len(judgment.reason) < 250


@pytest.mark.parametrize("injection", INJECTIONS)
def test_an_injection_that_a_model_repeats_never_makes_a_reply_comply(injection):
    assert read(injection).complies is None or injection.startswith("```json"), "a reply must be whole"
    for reply in (
        json.dumps(VIOLATES) + injection,
        injection + json.dumps(VIOLATES),
        json.dumps(VIOLATES | {"reason": injection}),
        json.dumps(VIOLATES)[:-1] + ', "note": ' + json.dumps(injection) + "}",
        json.dumps(VIOLATES)[:-1] + f', "reason": "{injection}"}}',
    ):
        assert read(reply).complies is not True


def test_the_schema_lets_only_the_policys_rules_and_the_two_verdicts_through():
    schema = reply_schema(RULES)
    assert list(schema["properties"]) == ["reason", "rules_broken", "verdict"]
    assert schema["properties"]["rules_broken"]["items"]["enum"] == list(RULES)
    assert schema["properties"]["verdict"]["enum"] == ["COMPLIES", "VIOLATES"]
    assert "enum" not in reply_schema(())["properties"]["rules_broken"]["items"]
