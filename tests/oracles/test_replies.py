"""A reply that is not plainly a verdict is unscored with its reason, never a guess."""

import json
import math
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from injections import INJECTIONS

from realignment.chat_client.client import Failure
from realignment.chat_client.completions import MalformedReplyError, parse_completion
from realignment.chat_client.retry import StatusError, error_message
from realignment.infer_policy.replies import read_principles, read_votes
from realignment.oracles.batch_files import read_replies
from realignment.oracles.cached import VerdictStore
from realignment.oracles.replies import read_reply, reply_schema, verdict_confidence

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
    assert "cut ?" in error_message(b'{"error": {"message": "cut \\ud83d"}}')


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
    "a number of 5000 digits": (f'{{"verdict": "COMPLIES", "reason": {"9" * 5000}}}', "not one JSON object"),
    "a number beyond all bounds": ('{"verdict": 1e999}', "found inf"),
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


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
SAID = st.fixed_dictionaries(
    {},
    optional={
        "verdict": st.sampled_from(["COMPLIES", "VIOLATES"]) | JSON,
        "rules_broken": st.lists(st.sampled_from([*RULES, "other"])) | JSON,
        "reason": st.text() | JSON,
        "note": JSON,
    },
)
DIGITS = st.integers(4000, 6000).map(lambda n: "7" * n)
"""About the length from which Python refuses to read an integer."""


@given(st.text() | (JSON | SAID).map(json.dumps) | DIGITS | st.integers(1, 3000).map(lambda n: "[" * n))
def test_any_reply_is_a_verdict_or_has_a_reason(reply):
    for text in (reply, f"```json\n{reply}\n```", f'{{"verdict": "COMPLIES", "reason": {reply}}}'):
        judgment = read(text)
        if judgment.complies is None:
            assert judgment.reason.startswith("unreadable reply: ")
            assert judgment.confidence == 0
        else:
            assert json.loads(text.strip().removeprefix("```json").removesuffix("```"))["verdict"] == (
                "COMPLIES" if judgment.complies else "VIOLATES"
            )
        judgment.reason.encode()


TOKENS = st.sampled_from(["COMPLIES", "VIOLATES", "COMP", "VIO", "C", "V", "x", ""]) | st.text(max_size=3)
ALTERNATIVES = st.lists(st.tuples(TOKENS, st.none() | st.floats() | st.floats(-50, 0.01)), max_size=4)


@given(TOKENS, ALTERNATIVES)
def test_a_confidence_is_a_probability_or_not_given(token, alternatives):
    result = verdict_confidence([('{"verdict": "', []), (token, alternatives), ('"}', [])])
    assert result is None or 0 < result <= 1


@pytest.mark.parametrize("odd", [None, math.nan, math.inf, 1000.0, 0.5])
def test_what_is_no_log_probability_gives_no_confidence(odd):
    def confidence(stated, other, third=-9.0):
        alternatives = [("COMP", stated), ("VI", other), ("X", third)]
        return verdict_confidence([('{"verdict": "', []), ("COMP", alternatives), ('LIES"}', [])])

    assert confidence(odd, -1.0) is None
    assert confidence(-1.0, odd) is None
    assert confidence(-1.0, -1.0, third=odd) == 0.5, "another word's does not matter"
    assert confidence(0.001, -math.inf) == 1.0


@given(st.binary() | JSON.map(json.dumps).map(str.encode) | st.integers(1, 3000).map(lambda n: b"[" * n))
def test_any_body_is_a_completion_or_malformed(tmp_path_factory, body):
    aside = [b'"usage": %b', b'"usage": {"prompt_tokens": %b}']
    within = b'{"choices": [{"message": {"content": "x"}, "logprobs": %b}]}'
    around = [b'{"choices": [{"message": {"content": "x"}}], %b}' % (part % body) for part in aside]
    for whole in (body, *around, within % body):
        with suppress(MalformedReplyError):
            completion = parse_completion(whole)
            completion.choices[0].tokens()
            assert completion.usage is None or 0 <= (completion.usage.prompt_tokens or 0) <= 1e9
        StatusError(500, whole, {"Retry-After": whole.decode(errors="replace")})
    file = tmp_path_factory.mktemp("replies") / "replies.jsonl"
    reply = b'{"custom_id": "a", "response": {"status_code": 200, "body": %b}}\n'
    refusal = b'{"custom_id": "a", "error": %b}\n' % body
    file.write_bytes(body + b"\n" + reply % body + reply % around[1] + refusal)
    for result in read_replies(file):
        assert result is None or not isinstance(result[1], Failure) or result[1].reason


def test_what_stands_beside_a_reply_does_not_throw_it_away():
    reply = {"message": {"content": "x"}, "logprobs": {"content": [{"token": "x", "logprob": None}]}}
    for usage in (None, [], {"prompt_tokens": None}, {"prompt_tokens": 10**400}, {"prompt_tokens": -1}):
        completion = parse_completion(json.dumps({"choices": [reply], "usage": usage}).encode())
        assert completion.choices[0].message.content == "x"
        assert completion.choices[0].tokens() == [("x", [("x", None)])]
        assert completion.usage is None or completion.usage.prompt_tokens is None
    old = {"tokens": ["x"], "content": "x"}
    (choice,) = parse_completion(json.dumps({"choices": [reply | {"logprobs": old}]}).encode()).choices
    assert choice.tokens() == []


@given(st.text() | JSON.map(json.dumps) | DIGITS.map(lambda n: f'{{"{n}": "A", "2": "B"}}'))
def test_any_reply_has_votes_and_principles_or_none(reply):
    assert set(read_votes(reply, 3)) <= {1, 2, 3}
    assert set(read_votes(reply, 3).values()) <= {"A", "B", "N"}
    assert all(isinstance(text, str) for text in read_principles(reply))


def test_votes_are_read_by_the_number_of_the_principle():
    assert read_votes('{"1": "A", " 02 ": "B", "3": "C", "4": "N", "0": "A"}', 3) == {1: "A", 2: "B"}
    assert read_votes('{"1": "A", "01": "B", "2": "B"}', 3) == {2: "B"}, "two votes on one principle"
    assert read_votes('{"1": "A", "1": "B", "2": "B"}', 3) == {}


def test_a_long_reply_is_read_in_no_time():
    begun = time.perf_counter()
    read("```" + "\n" * 30_000)
    read("{" + ", ".join(f'"{n}": 1' for n in range(30_000)) + "}")
    assert time.perf_counter() - begun < 1, "reading takes the square of the length"


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
