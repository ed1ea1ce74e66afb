"""Who compares answers: the rules, a model behind a real server, a model in this process."""

import json
import math

import pytest
import torch
from base_model import transformers_serve
from injections import INJECTIONS
from pydantic import ValidationError
from servers import Script, chat_settings, completion, exchange_of, scripted, unused_url
from tiny_models import save_model

from realignment.evaluation.win_rates import local_comparator
from realignment.evaluation.win_rates.comparators import AnswerPair, Better, RulesComparator
from realignment.evaluation.win_rates.local_comparator import choose_better
from realignment.evaluation.win_rates.model_comparators import (
    ONE_WORD,
    WORDS,
    ChatComparator,
    ModelComparator,
    build_comparator,
    build_messages,
)
from realignment.oracles.cached import VerdictStore
from realignment.oracles.rules import NoRulesError
from realignment.parameters import LocalLMParameters, SeverityWeights, WinRateParameters
from realignment.policy import parse_policy


def rule(name, severity):
    check = {"kind": "forbidden", "patterns": [name]}
    return {"id": name, "description": f"No {name}.", "severity": severity, "check": check}


RULES = [rule("low", "low"), rule("mid", "medium"), rule("med", "medium"), rule("high", "high")]
POLICY = parse_policy({"name": "advice", "version": "2", "text": "Be careful.", "rules": RULES}, "test")
FIRST, SECOND, TIE = Better.FIRST, Better.SECOND, Better.TIE


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr("realignment.chat_client.retry._FIRST_WAIT_S", 0.01)


# --- rules


@pytest.mark.parametrize(
    ("first", "second", "better"),
    [
        ("fine", "low", FIRST),
        ("low", "fine", SECOND),
        ("mid med", "mid", SECOND),
        ("mid med", "high", FIRST),  # 3 + 3 against 9
        ("low mid", "med", SECOND),
        ("mid", "med", TIE),
        ("fine", "good", TIE),
    ],
)
def test_the_answer_whose_broken_rules_weigh_less_is_better(first, second, better):
    (preference,) = RulesComparator()([AnswerPair("?", first, second)], POLICY)
    assert preference.better == better


def test_the_weights_of_severities_are_parameters():
    pair = [AnswerPair("?", "mid med", "high")]
    weights = SeverityWeights(low=1, medium=5, high=9)
    comparator = build_comparator(WinRateParameters(judge="rules", severity_weights=weights))
    assert comparator(pair, POLICY)[0].better == SECOND


@pytest.mark.parametrize(("tie_break", "better"), [("tie", TIE), ("shorter", SECOND), ("longer", FIRST)])
def test_a_tie_break_decides_where_the_rules_do_not(tie_break, better):
    comparator = RulesComparator(tie_break=tie_break)
    (even, broken, same) = comparator(
        [AnswerPair("?", "one two", "one"), AnswerPair("?", "one two", "low"), AnswerPair("?", "a b", "c d")],
        POLICY,
    )
    assert (even.better, broken.better, same.better) == (better, FIRST, TIE)


def test_the_rules_prefer_the_same_answer_in_both_orders():
    answers = ["fine", "low", "mid med", "high low", "one two"]
    comparator = RulesComparator(tie_break="shorter")
    forward = comparator([AnswerPair("?", a, b) for a in answers for b in answers], POLICY)
    backward = comparator([AnswerPair("?", b, a) for a in answers for b in answers], POLICY)
    mirror = {FIRST: SECOND, SECOND: FIRST, TIE: TIE}
    assert [p.better for p in forward] == [mirror[p.better] for p in backward]
    assert comparator.symmetric


def test_where_a_rule_applies_that_no_machine_checks_nothing_is_guessed():
    scope = {"domains": ["law"]}
    judged = {"id": "tone", "description": "Kind.", "scope": scope, "check": {"kind": "judged"}}
    policy = parse_policy({"name": "a", "version": "1", "text": "t", "rules": [*RULES, judged]}, "test")
    law, money = RulesComparator()(
        [AnswerPair("?", "fine", "low", "law"), AnswerPair("?", "fine", "low", "money")], policy
    )
    assert (law.better, law.reason) == (None, "no machine can check tone")
    assert money.better == FIRST


def test_a_policy_without_rules_cannot_compare_by_them():
    policy = parse_policy({"name": "a", "version": "1", "text": "t"}, "test")
    with pytest.raises(NoRulesError, match=r"`evaluation.win_rate.judge` to chat or local_lm"):
        RulesComparator()([AnswerPair("?", "a", "b")], policy)


# --- a model behind a server

PAIRS = [AnswerPair(f"Question {n}?", f"bad {n}", f"good {n}", "money") for n in range(6)]


def say(word, **more):
    return completion(json.dumps({"reason": "It is careful.", "better": word} | more))


def prefer_good(body, attempt):
    return say("A" if "good" in exchange_of(body)["answer_a"] else "B")


def test_every_pair_is_asked_once_with_policy_and_both_answers_as_data():
    script = Script(prefer_good)
    with scripted(script) as url:
        comparator = ModelComparator(ChatComparator(chat_settings(url)))
        preferences = comparator(PAIRS, POLICY)
    assert [p.better for p in preferences] == [SECOND] * 6
    assert {p.reason for p in preferences} == {"It is careful."}
    assert sorted(asked["prompt"] for asked in script.asked()) == [pair.prompt for pair in PAIRS]
    body = script.bodies[0]
    assert "Be careful." in body["messages"][0]["content"]
    assert "high (high severity): No high." in body["messages"][0]["content"]
    assert set(exchange_of(body)) == {"topic", "prompt", "answer_a", "answer_b"}
    assert body["response_format"]["json_schema"]["schema"]["properties"]["better"]["enum"] == [*WORDS]
    assert comparator.name == "chat m"


UNREADABLE = [
    completion("A is better."),
    completion('{"better": "C"}'),
    completion('{"better": "a"}'),
    completion('{"better": ["A"]}'),
    completion('{"better": "A", "better": "B"}'),
    completion('{"better": "A", "verdict": "COMPLIES"}'),
    completion('{"reason": "Both'),
    completion(""),
    say("A") | {"choices": [say("A")["choices"][0] | {"finish_reason": "length"}]},
]


@pytest.mark.parametrize("reply", UNREADABLE, ids=range(len(UNREADABLE)))
def test_an_unreadable_or_cut_reply_is_unscored_with_its_reason(reply):
    with scripted(Script(lambda body, attempt: reply)) as url:
        (preference,) = ModelComparator(ChatComparator(chat_settings(url)))(PAIRS[:1], POLICY)
    assert preference.better is None
    assert preference.reason.startswith(("unreadable reply", "the reply was cut"))
    assert not preference.fault


def test_a_dead_server_leaves_everything_unscored_and_the_next_run_asks_again(tmp_path):
    store = VerdictStore(tmp_path / "store.sqlite")
    url = unused_url()
    settings = chat_settings(url, max_attempts=1)
    dead = ModelComparator(ChatComparator(settings), store)(PAIRS, POLICY)
    assert {p.better for p in dead} == {None}
    assert all(p.fault and f"No server answers at {url}" in p.reason for p in dead)
    # The same server, which is there now: its address is part of what the store knows answers by.
    assert store.look_up([]) == {}
    script = Script(prefer_good)
    with scripted(script) as other:
        alive = ModelComparator(ChatComparator(chat_settings(other)), store)
        assert [p.better for p in alive(PAIRS, POLICY)] == [SECOND] * 6
        assert len(script.bodies) == 6
        assert [p.better for p in alive([*PAIRS, *PAIRS], POLICY)] == [SECOND] * 12
        assert len(script.bodies) == 6


def test_what_a_server_answered_before_it_died_is_kept(tmp_path):
    """It refuses the key from the fourth question on, which ends all requests."""
    store = VerdictStore(tmp_path / "store.sqlite")
    script = Script()

    def answer(body, attempt):
        return prefer_good(body, attempt) if len(script.bodies) <= 3 or alive else 401

    script.answer = answer
    alive = False
    with scripted(script) as url:
        comparator = ModelComparator(ChatComparator(chat_settings(url, concurrency=1)), store)
        found = comparator(PAIRS, POLICY)
        assert [p.better for p in found].count(SECOND) == 3
        assert [p.fault for p in found].count(True) == 3
        asked = len(script.bodies)
        alive = True
        assert [p.better for p in comparator(PAIRS, POLICY)] == [SECOND] * 6
        assert len(script.bodies) == asked + 3


def test_a_tie_and_an_unreadable_reply_come_back_from_the_store_as_they_were(tmp_path):
    script = Script(lambda body, attempt: say("tie") if "0" in body["messages"][1]["content"] else say("?"))
    store = VerdictStore(tmp_path / "store.sqlite")
    with scripted(script) as url:
        comparator = ModelComparator(ChatComparator(chat_settings(url)), store)
        first = comparator(PAIRS[:2], POLICY)
        assert comparator(PAIRS[:2], POLICY) == first
    assert [p.better for p in first] == [TIE, None]
    assert len(script.bodies) == 2


def test_another_policy_model_or_order_is_another_question():
    other = parse_policy({"name": "advice", "version": "3", "text": "Be bold.", "rules": RULES}, "test")
    comparator = ChatComparator(chat_settings("http://x/v1"))
    assert comparator.identity != ChatComparator(chat_settings("http://x/v1", model="n")).identity
    assert comparator.identity != ChatComparator(chat_settings("http://y/v1")).identity
    assert comparator.identity == ChatComparator(chat_settings("http://x/v1", concurrency=2)).identity
    assert build_messages(PAIRS[0], POLICY, ONE_WORD)[0] != build_messages(PAIRS[0], other, ONE_WORD)[0]


@pytest.mark.parametrize("text", INJECTIONS)
def test_an_answer_stays_data_whatever_it_says(text):
    _, user = build_messages(AnswerPair("Hi", text, "fine"), POLICY, ONE_WORD)
    title, data, *question = user.split("\n")
    assert json.loads(data) == {"prompt": "Hi", "answer_a": text, "answer_b": "fine"}
    assert (title, question) == ("The answers to compare:", ["", ONE_WORD])
    assert "<" not in data


@pytest.mark.slow
def test_a_real_model_behind_transformers_serve_compares_or_says_why_not(base_model):
    with transformers_serve(base_model) as url:
        settings = chat_settings(url, model=str(base_model), timeout_s=120.0, max_tokens=24)
        preferences = ModelComparator(ChatComparator(settings))(PAIRS[:2], POLICY)
    assert not any(p.fault for p in preferences), [p.reason for p in preferences]
    assert all(p.better is not None or p.reason for p in preferences)


# --- a model in this process


@pytest.fixture(scope="module")
def local(tmp_path_factory, tiny_model):
    """A judge with far from uniform weights, and the chat template of the tiny model."""
    from transformers import AutoTokenizer

    folder = save_model(tmp_path_factory.mktemp("judge"), seed=3, scale=1.5)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    settings = LocalLMParameters(source=folder, folder="unused", dtype="float32", device="cpu")
    return build_comparator(WinRateParameters(judge="local_lm", local_lm=settings))


QUESTIONS = [
    AnswerPair(prompt, first, second, domain)
    for prompt, domain in (("Why?", "law"), ("How?", None))
    for first in ("Sell.", "Wait a year.", "Ask a lawyer.")
    for second in ("Buy!", "No.")
]


def naive_probabilities(local, pair):
    """One full forward pass, all positions, the whole vocabulary: slow, and obviously right."""
    oracle = local.model.oracle
    text = local.model._render(pair, POLICY)
    start = oracle.tokenizer(text, add_special_tokens=False)["input_ids"]
    firsts = [oracle.tokenizer(text + w, add_special_tokens=False)["input_ids"][len(start)] for w in WORDS]
    with torch.no_grad():
        logits = oracle.model(input_ids=torch.tensor([start]), use_cache=False).logits[0, -1]
    return logits[firsts].double().softmax(0).tolist()


def test_the_most_probable_answer_is_that_of_one_full_forward_pass(local):
    expected = [naive_probabilities(local, pair) for pair in QUESTIONS]
    found = local(QUESTIONS, POLICY)
    assert [p.better for p in found] == [choose_better(shares).better for shares in expected]
    for preference, shares in zip(found, expected, strict=True):
        stated = [float(part.split(" = ")[1]) for part in preference.reason.split(", ")]
        assert stated == pytest.approx(shares, abs=0.006)
    assert len({tuple(round(share, 6) for share in shares) for shares in expected}) == len(QUESTIONS)


def test_the_order_of_the_questions_does_not_matter(local):
    found = local(QUESTIONS, POLICY)
    assert local(QUESTIONS[::-1], POLICY) == found[::-1]
    assert [local([pair], POLICY)[0].better for pair in QUESTIONS] == [p.better for p in found]
    assert local([], POLICY) == []


def test_a_request_longer_than_the_model_reads_is_unscored(local):
    long = AnswerPair("?", "a" * 3000, "b")
    found, other = local([long, QUESTIONS[0]], POLICY)
    assert found.better is None
    assert "the model reads 2048" in found.reason
    assert other == local([QUESTIONS[0]], POLICY)[0]


@pytest.mark.parametrize(
    ("shares", "better"),
    [
        ((0.5, 0.3, 0.2), FIRST),
        ((0.3, 0.5, 0.2), SECOND),
        ((0.2, 0.3, 0.5), TIE),
        ((0.4, 0.4, 0.2), TIE),
        ((math.nan,) * 3, None),
    ],
)
def test_the_most_probable_word_decides(shares, better):
    assert choose_better(shares).better == better


def test_the_answers_of_a_model_are_kept_by_its_own_identity(local, tmp_path):
    store = VerdictStore(tmp_path / "store.sqlite")
    comparator = ModelComparator(local.model, store)
    first = comparator(QUESTIONS, POLICY)
    asked = local.model.usage.asked
    assert comparator(QUESTIONS, POLICY) == first
    assert local.model.usage.asked == asked
    assert local.model.identity != local.model.oracle.identity
    assert isinstance(local.model, local_comparator.LocalLMComparator)


# --- parameters


def test_nobody_compares_where_the_judge_is_null():
    assert build_comparator(WinRateParameters()) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"judge": "chat"}, "section `chat"),
        ({"judge": "local_lm"}, "section `local_lm"),
        (
            {"judge": "local_lm", "local_lm": {"source": "m", "folder": "f", "template": "shieldgemma"}},
            "cannot compare two",
        ),
        ({"judge": "people"}, "judge"),
    ],
)
def test_a_judge_that_cannot_compare_is_refused_by_name(settings, message):
    with pytest.raises(ValidationError, match=message):
        WinRateParameters(**settings)
