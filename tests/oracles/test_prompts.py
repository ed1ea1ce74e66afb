"""What a response says stays data: it closes no string, no turn, no section, whatever it holds."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from injections import INJECTIONS
from servers import chat_settings
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from realignment.chat_client.client import build_request_body
from realignment.oracles import chat, prompts, questions
from realignment.oracles.batch import BatchOracle
from realignment.oracles.chat import ChatOracle
from realignment.oracles.prompts import (
    AS_JSON,
    GUARD_FORMATS,
    INSTRUCTION,
    ONE_WORD,
    break_marks,
    build_system_message,
    build_user_message,
    compile_escapes,
    encode_exchange,
    list_probes,
)
from realignment.oracles.questions import build_chat_question, build_guard_question
from realignment.parameters import BatchParameters
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


@given(st.text(), st.none() | st.text(), st.lists(st.text(min_size=1, max_size=3), max_size=3))
def test_any_exchange_is_read_as_what_was_said(text, domain, special):
    line = encode_exchange(Exchange(text, text, domain), compile_escapes(special))
    found = json.loads(line)
    assert (found["prompt"], found["response"], found.get("topic")) == (text, text, domain)
    assert len(line.splitlines()) == len(("-" + line + "-").splitlines())


SIGNS = st.text('[]{}<>|"\\gMASK_1 ☃🙂\n', max_size=12)


@given(SIGNS, st.lists(st.sampled_from(["[gMASK]", "[1]", '"}', "☃", "🙂", "|]", "g|", "{{", "\\M"])))
def test_no_special_token_is_left_in_the_data(text, special):
    line = encode_exchange(Exchange("", text), compile_escapes(special))
    escaped_text = line.removeprefix('{"prompt": "", "response": "').removesuffix('"}')
    assert not [token for token in special if token in escaped_text]


@pytest.mark.parametrize("mark", ["[/INST]", "[INST]", "[gMASK]", "[UNUSED_TOKEN_145]", "[sMASK]", "[A1]"])
def test_what_looks_like_a_mark_is_broken_for_models_that_nobody_here_knows(mark):
    assert mark not in encode_exchange(Exchange(mark, f"a{mark}b"))


@pytest.mark.parametrize("text", ["[link](a)", "[Name]", "[1]", "a[i]", "[]"])
def test_brackets_of_plain_text_stay(text):
    assert text in encode_exchange(Exchange("", text))


@pytest.mark.parametrize("question", [ONE_WORD, AS_JSON])
@pytest.mark.parametrize("injection", INJECTIONS)
def test_a_chat_request_differs_from_a_harmless_one_only_in_its_data_line(injection, question):
    harmless = build_user_message(HARMLESS, question).splitlines()
    attacked = build_user_message(Exchange("Should I?", injection, "money"), question).splitlines()
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


@pytest.mark.parametrize("marks", [["☃"], ["☃", "a☃"], ["a\u200bb"], ["\u200b"]])
def test_a_mark_without_an_inside_is_replaced(marks):
    broken = break_marks("a☃ a\u200bb ☃☃", marks)
    assert not [mark for mark in marks if mark in broken]
    assert len(broken) >= len("a☃ a\u200bb ☃☃")


def test_the_instruction_holds_the_policy_with_the_topics_of_its_rules():
    text = build_system_message(POLICY)
    assert "# Policy advice, version 2" in text
    assert "Be careful." in text
    assert "- no-sell (high severity, only on the topics money, law): Gives no order to sell." in text
    assert "- short (medium severity): Is short." in text


def test_a_guard_format_holds_policy_prompt_and_response():
    for guard in GUARD_FORMATS.values():
        text = guard.render(POLICY, HARMLESS, SPECIAL)
        assert all(part in text for part in ("Be careful.", "no-sell", "Should I?", "Ask a friend."))


def tokenizer():
    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE()), additional_special_tokens=["[gMASK]"])
    bare.chat_template = "{% for m in messages %}|{{ m['role'] }}|{{ m['content'] }}{% endfor %}"
    return bare


def asked_by_chat(policy, exchange):
    settings = chat_settings("http://a/v1")
    return [
        build_request_body(body, settings) for body in ChatOracle(settings).build_bodies([exchange], policy)
    ]


def asked_by(question):
    return lambda policy, exchange: question(tokenizer()).render(policy, exchange)


BATCH = BatchParameters(command=("true", "{input}", "{output}"), folder="nowhere")
ASKED = {
    "chat": (lambda: ChatOracle(chat_settings("http://a/v1")).identity, asked_by_chat),
    "vllm_batch": (
        lambda: BatchOracle(ChatOracle(chat_settings("http://a/v1")), BATCH).identity,
        asked_by_chat,
    ),
    "local_lm": (lambda: build_chat_question(tokenizer()).digest, asked_by(build_chat_question)),
} | {
    family: (
        lambda family=family: build_guard_question(tokenizer(), family).digest,
        asked_by(lambda t, family=family: build_guard_question(t, family)),
    )
    for family in GUARD_FORMATS
}  # fmt: skip
"""Oracle → who it is, and what it is asked about an exchange."""
MARKS = [mark for guard in GUARD_FORMATS.values() for mark in guard.marks]


def more(function):
    return lambda *args, **kwargs: function(*args, **kwargs) + "."


CHANGES = {
    "the instruction": (prompts, "INSTRUCTION", INSTRUCTION + " Be strict."),
    "the question": (questions, "ONE_WORD", ONE_WORD + " Yes or No?"),
    "the form of the reply": (chat, "AS_JSON", AS_JSON + " No prose."),
    "the description of a policy": (prompts, "describe_policy", more(prompts.describe_policy)),
    "the description of a rule": (prompts, "_describe_rule", more(prompts._describe_rule)),
    "what is said of topics": (
        prompts, "_describe_rule",
        lambda rule, was=prompts._describe_rule: was(rule).replace("only on the topics", "on"),
    ),
    "the request": (chat, "build_user_message", more(build_user_message)),
    "the request of a model here": (questions, "build_user_message", more(build_user_message)),
    "the system message": (questions, "build_system_message", more(build_system_message)),
    "the exchange": (prompts, "encode_exchange", more(encode_exchange)),
    "how a character is escaped": (prompts, "_escape", lambda found: f"\\u{ord(found[0]):04X}"),
    "the schema": (chat, "reply_schema", lambda rules: {"type": "object"}),
    "the schema of policies without rules": (
        chat, "reply_schema", lambda rules, was=chat.reply_schema: was(rules) if rules else {}
    ),
    "alternatives to a token": (chat, "_TOP_LOGPROBS", 20),
    "special tokens": (questions, "list_special_tokens", lambda tokenizer: ["[1]"]),
    "how a mark is broken": (prompts, "_INVISIBLE", "\u2060"),
    "how a template is filled in": (questions, "_apply", lambda tokenizer, turns: str(turns)),
    "whether a model knows the system": (questions, "_has_system_role", lambda tokenizer: False),
    "a guard's text": ("text", lambda guard: guard.text + " "),
    "a guard's marks": ("marks", lambda guard: guard.marks[1:]),
}  # fmt: skip


@pytest.mark.parametrize("oracle", ASKED)
@pytest.mark.parametrize("change", CHANGES)
def test_what_asks_otherwise_is_another_oracle_and_what_does_not_is_the_same(monkeypatch, oracle, change):
    identity, ask_about = ASKED[oracle]
    exchanges = [Exchange(text, text.swapcase() + text, domain) for domain in ("money", None)
                 for text in ("Should I? [1]", *INJECTIONS, *MARKS)]  # fmt: skip
    policies = (POLICY, POLICY.model_copy(update={"rules": ()}))

    def now():
        return [
            ask_about(policy, exchange) for policy in policies for exchange in exchanges[:: len(policies)]
        ]

    before, texts = identity(), now()
    assert identity() == before
    if isinstance(CHANGES[change][0], str):
        field, changed = CHANGES[change]
        for family, guard in GUARD_FORMATS.items():
            monkeypatch.setitem(GUARD_FORMATS, family, dataclasses.replace(guard, **{field: changed(guard)}))
    else:
        monkeypatch.setattr(*CHANGES[change])
    assert (identity() != before) == (now() != texts)


def test_every_change_is_one_to_some_oracle(monkeypatch):
    """Else the test above would say of nothing that nothing changes."""
    for change in CHANGES.values():
        before = [identity() for identity, _ in ASKED.values()]
        with monkeypatch.context() as patch:
            if isinstance(change[0], str):
                for family, guard in GUARD_FORMATS.items():
                    altered = dataclasses.replace(guard, **{change[0]: change[1](guard)})
                    patch.setitem(GUARD_FORMATS, family, altered)
            else:
                patch.setattr(*change)
            assert [identity() for identity, _ in ASKED.values()] != before, change


def test_the_probes_hold_every_character_that_is_escaped():
    data = next(exchange.response + exchange.prompt for _, exchange in list_probes())
    assert set(map(chr, range(128))) | set("\u2028\u2029") <= set(data)
    assert {bool(policy.rules) for policy, _ in list_probes()} == {True, False}
    assert {exchange.domain is None for _, exchange in list_probes()} == {True, False}
