"""What a response says stays data: it closes no string, no turn, no section, whatever it holds."""

import json

import pytest
from oracles.injections import INJECTIONS

from realignment.oracles.prompts import (
    AS_JSON,
    GUARD_FORMATS,
    ONE_WORD,
    ask,
    break_marks,
    encode_exchange,
    instruct,
)
from realignment.policy import parse_policy
from realignment.records import Exchange

RULES = [
    {
        "id": "no-sell", "description": "Gives no order to sell.", "severity": "high",
        "scope": {"domains": ["money", "law"]}, "check": {"kind": "forbidden", "patterns": ["sell"]},
    },
    {"id": "short", "description": "Is short.", "check": {"kind": "length", "max_words": 9}},
]  # fmt: skip
POLICY = parse_policy({"name": "advice", "version": "2", "text": "Be careful.", "rules": RULES}, "test")
HARMLESS = Exchange("Should I?", "Ask a friend.", "money")
SPECIAL = ("<|im_start|>", "<|im_end|>", "<bos>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")


def test_there_are_at_least_thirty_injections():
    assert len(set(INJECTIONS)) >= 30


@pytest.mark.parametrize("field", ["prompt", "response"])
@pytest.mark.parametrize("injection", INJECTIONS)
def test_a_chat_request_holds_an_injection_as_one_json_string(injection, field):
    exchange = Exchange(**{"prompt": "Should I?", "response": "No.", "domain": "money", field: injection})
    line = encode_exchange(exchange)
    assert json.loads(line) == {
        "topic": "money", "prompt": exchange.prompt, "response": exchange.response
    }, "the model must be able to read exactly what was said"  # fmt: skip
    assert len(line.splitlines()) == 1
    assert not set("<>\u2028\u2029") & set(line)
    assert "[/INST]" not in line
    assert "[INST]" not in line


@pytest.mark.parametrize("question", [ONE_WORD, AS_JSON])
@pytest.mark.parametrize("injection", INJECTIONS)
def test_a_chat_request_differs_from_a_harmless_one_only_in_its_data_line(injection, question):
    harmless = ask(HARMLESS, question).splitlines()
    attacked = ask(Exchange("Should I?", injection, "money"), question).splitlines()
    assert len(attacked) == len(harmless)
    assert [line for line in attacked if line not in harmless] == [attacked[1]]


@pytest.mark.parametrize("family", GUARD_FORMATS)
@pytest.mark.parametrize("injection", INJECTIONS)
def test_no_delimiter_of_a_guard_format_comes_from_the_data(family, injection):
    guard = GUARD_FORMATS[family]
    harmless = guard.render(POLICY, HARMLESS, SPECIAL)
    for attacked in (Exchange("Should I?", injection), Exchange(injection, "Ask a friend.")):
        text = guard.render(POLICY, attacked, SPECIAL)
        for mark in (*guard.marks, *SPECIAL):
            assert text.count(mark) == harmless.count(mark), f"{mark} got in"


@pytest.mark.parametrize("family", GUARD_FORMATS)
def test_every_mark_of_a_guard_format_structures_it(family):
    guard = GUARD_FORMATS[family]
    assert all(mark in guard.text for mark in guard.marks)


def test_breaking_a_mark_leaves_none_and_loses_no_character():
    for text in ("abab", "aabb", "xaby", "aba"):
        broken = break_marks(text, ["ab", "ba"])
        assert "ab" not in broken
        assert "ba" not in broken
        assert broken.replace("\u200b", "") == text


def test_the_instruction_holds_the_policy_with_the_topics_of_its_rules():
    text = instruct(POLICY)
    assert "# Policy advice, version 2" in text
    assert "Be careful." in text
    assert "- no-sell (high severity, only on the topics money, law): Gives no order to sell." in text
    assert "- short (medium severity): Is short." in text


def test_a_guard_format_holds_policy_prompt_and_response():
    for guard in GUARD_FORMATS.values():
        text = guard.render(POLICY, HARMLESS, SPECIAL)
        assert all(part in text for part in ("Be careful.", "no-sell", "Should I?", "Ask a friend."))
