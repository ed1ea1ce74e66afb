"""The chat oracle against a real server over real HTTP that has every fault in its script."""

import asyncio
import json
import math
import threading
import time

import pytest
from servers import (
    COMPLIES,
    VIOLATES,
    BreakOff,
    Script,
    chat_settings,
    completion,
    exchange_of,
    scripted,
    unused_url,
)

from realignment.chat_client.retry import RateLimiter
from realignment.oracles import OracleError
from realignment.oracles.cached import CachedOracle, VerdictStore, verdict_key
from realignment.oracles.chat import ChatOracle
from realignment.policy import parse_policy
from realignment.records import Exchange

RULES = [{"id": "no-sell", "description": "No order.", "check": {"kind": "forbidden", "patterns": ["sell"]}}]
POLICY = parse_policy({"name": "advice", "version": "2", "text": "Be careful.", "rules": RULES}, "test")
FINE = completion(json.dumps(COMPLIES))
EXCHANGES = [Exchange("Should I?", f"Answer {number}.", "money") for number in range(12)]


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr("realignment.chat_client.retry._FIRST_WAIT_S", 0.01)


@pytest.fixture
def serve():
    """Judges with a server that follows a script: judgments, script, oracle."""

    def serve(answer=None, exchanges=EXCHANGES, *, key=None, sample=0, **settings):
        script = Script(key=key) if answer is None else Script(answer, key=key)
        with scripted(script) as url:
            oracle = ChatOracle(chat_settings(url, **settings), sample=sample)
            return oracle(exchanges, POLICY), script, oracle

    return serve


def test_every_exchange_is_asked_once_and_judged_in_order(serve):
    def answer(body, attempt):
        odd = int(exchange_of(body)["response"].split()[1].rstrip(".")) % 2
        time.sleep(0.02 if odd else 0)
        return completion(json.dumps(VIOLATES | {"rules_broken": ["no-sell"]} if odd else COMPLIES))

    judgments, script, oracle = serve(answer)
    assert [j.complies for j in judgments] == [True, False] * 6
    assert [j.rules_broken for j in judgments] == [(), ("no-sell",)] * 6
    assert {(j.oracle, j.confidence) for j in judgments} == {("chat m", 1.0)}
    assert sorted(asked["response"] for asked in script.asked()) == sorted(e.response for e in EXCHANGES)
    assert (oracle.usage.asked, oracle.usage.requests) == (12, 12)


def test_a_request_has_policy_schema_and_temperature(serve):
    _, script, _ = serve(exchanges=EXCHANGES[:1], extra={"chat_template_kwargs": {"enable_thinking": False}})
    (body,) = script.bodies
    assert [m["role"] for m in body["messages"]] == ["system", "user"]
    assert "no-sell (medium severity): No order." in body["messages"][0]["content"]
    assert exchange_of(body) == {"topic": "money", "prompt": "Should I?", "response": "Answer 0."}
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["rules_broken"]["items"]["enum"] == ["no-sell"]
    assert (body["temperature"], body["max_tokens"], body["logprobs"]) == (0.0, 256, True)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}


def test_what_a_server_does_not_know_can_be_left_out(serve):
    settings = {"json_schema": False, "logprobs": False, "extra": {"max_tokens": None, "seed": None}}
    _, script, _ = serve(exchanges=EXCHANGES[:1], **settings)
    assert set(script.bodies[0]) == {"model", "messages", "temperature"}


def test_so_many_requests_are_under_way_and_no_more(serve):
    together = threading.Barrier(4)

    def answer(body, attempt):
        together.wait(timeout=20)  # passes only where four requests are there at the same time
        return FINE

    judgments, script, _ = serve(answer, concurrency=4)
    assert script.most_under_way == 4
    assert all(j.complies for j in judgments)


def test_no_request_starts_before_its_turn():
    async def starts():
        rate_limiter = RateLimiter(per_minute=1200)
        loop = asyncio.get_running_loop()
        begun = loop.time()

        async def start():
            await rate_limiter.wait()
            return loop.time() - begun

        return await asyncio.gather(*(start() for _ in range(5)))

    for turn, seconds in enumerate(asyncio.run(starts())):
        assert seconds >= turn * 60 / 1200 - 0.002, "a timer may be early by the resolution of the clock"


TRANSIENT = {
    "too many requests": 429,
    "too many requests, with the time to wait": (429, {"Retry-After": "0"}),
    "an error of the server": 500,
    "an overloaded server": 503,
    "a body that is not JSON": b"<html>busy</html>",
    "JSON that is no completion": b'{"status": "busy"}',
    "a completion without a choice": b'{"choices": []}',
    "an error of a thousand lists": (500, {}, b"[" * 100_000),
    "a time to wait that is no time": (429, {"Retry-After": f"Mon, 01 Jan 2030 {'9' * 20}:00:00 GMT"}),
}


@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_transient_fault_is_asked_again(serve, fault):
    judgments, script, oracle = serve(lambda body, attempt: TRANSIENT[fault] if attempt == 1 else FINE)
    assert all(j.complies for j in judgments)
    assert oracle.usage.requests == len(script.bodies) == 24
    assert oracle.usage.asked == 12


def test_half_a_reply_is_asked_again(serve):
    def answer(body, attempt):
        if attempt == 1:
            raise BreakOff
        return FINE

    judgments, script, _ = serve(answer, EXCHANGES[:3])
    assert [j.complies for j in judgments] == [True] * 3
    assert len(script.bodies) == 6


def test_the_server_says_how_long_to_wait(serve):
    _, script, _ = serve(
        lambda body, attempt: (429, {"Retry-After": "0.4"}) if attempt == 1 else FINE,
        EXCHANGES[:1],
    )
    assert script.times[1] - script.times[0] >= 0.4


def test_a_hanging_request_ends_and_the_others_are_judged(serve):
    def answer(body, attempt):
        if exchange_of(body)["response"] == "Answer 3.":
            time.sleep(3)
        return FINE

    judgments, _, _ = serve(answer, timeout_s=0.5, max_attempts=2)
    assert [j.complies for j in judgments] == [True] * 3 + [None] + [True] * 8
    assert judgments[3].fault
    assert "timed out" in judgments[3].reason


def test_a_fault_that_stays_is_unscored_with_its_reason(serve):
    judgments, script, _ = serve(
        lambda body, attempt: 500 if "3" in exchange_of(body)["response"] else FINE,
        max_attempts=3,
    )
    assert [j.complies for j in judgments].count(None) == 1
    assert judgments[3].fault
    assert judgments[3].reason == "no reply: StatusError: status 500: scripted"
    assert sum(asked["response"] == "Answer 3." for asked in script.asked()) == 3


def test_a_request_that_the_server_refuses_is_unscored_at_once(serve):
    judgments, script, _ = serve(lambda body, attempt: 400, EXCHANGES[:2])
    assert [(j.complies, j.fault) for j in judgments] == [(None, True)] * 2
    assert len(script.bodies) == 2


UNREADABLE = {
    "prose": completion("The response complies."),
    "a number of 5000 digits": completion(f'{{"verdict": "COMPLIES", "reason": {"9" * 5000}}}'),
    "a verdict outside the set": completion(json.dumps(COMPLIES | {"verdict": "MAYBE"})),
    "a contradiction": completion(json.dumps(COMPLIES | {"rules_broken": ["no-sell"]})),
    "no text": completion(None),
}


@pytest.mark.parametrize("reply", UNREADABLE)
def test_an_unreadable_reply_is_unscored_and_not_asked_again(serve, reply):
    judgments, script, _ = serve(lambda body, attempt: UNREADABLE[reply], EXCHANGES[:2])
    assert [(j.complies, j.confidence, j.fault) for j in judgments] == [(None, 0.0, False)] * 2
    assert all(j.reason.startswith("unreadable reply") for j in judgments)
    assert len(script.bodies) == 2


def test_a_cut_reply_is_unscored_even_where_it_reads_as_a_verdict(serve):
    cut = completion(json.dumps(COMPLIES), finish="length")
    (judgment,), _, _ = serve(lambda body, attempt: cut, EXCHANGES[:1])
    assert judgment.complies is None
    assert "cut at 256 tokens (`judging.chat.max_tokens`)" in judgment.reason


def test_a_wrong_key_ends_the_run_at_once_and_is_not_repeated(serve, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "sk-wrong-secret")
    bodies = []
    script = Script(lambda body, attempt: bodies.append(body), key="sk-right")
    with scripted(script) as url:
        oracle = ChatOracle(chat_settings(url, api_key_variable="JUDGE_KEY", concurrency=1))
        with pytest.raises(OracleError, match=r"or wants one \(401\).*api_key_variable") as caught:
            oracle(EXCHANGES, POLICY)
    assert len(script.bodies) == 1
    assert "sk-wrong-secret" not in str(caught.value)


def test_the_key_comes_from_the_environment_variable(serve, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "sk-right")
    judgments, _, oracle = serve(key="sk-right", api_key_variable="JUDGE_KEY")
    assert all(j.complies for j in judgments)
    assert "sk-right" not in repr(oracle)


@pytest.mark.parametrize("key", [None, "", " \r\n"])
def test_a_variable_without_a_key_is_named(serve, monkeypatch, key):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("JUDGE_KEY", key)
    with pytest.raises(OracleError, match=r"JUDGE_KEY holds no key"):
        serve(api_key_variable="JUDGE_KEY")


@pytest.mark.parametrize("key", ["sk-right\r\n", " sk-right\t"])
def test_a_key_is_what_its_file_holds_besides_the_line_end(serve, monkeypatch, key):
    monkeypatch.setenv("JUDGE_KEY", key)
    judgments, _, _ = serve(key="sk-right", api_key_variable="JUDGE_KEY")
    assert all(j.complies for j in judgments)


@pytest.mark.parametrize("key", ["sk-one\r\nsk-two", "sk-\x1b[0m-two", "sk-one\nX-Other: two"])
def test_a_key_that_cannot_be_sent_is_an_error_that_names_its_variable_alone(serve, monkeypatch, key):
    monkeypatch.setenv("JUDGE_KEY", key)
    with pytest.raises(OracleError, match=r"JUDGE_KEY holds a line end or another control") as caught:
        serve(api_key_variable="JUDGE_KEY")
    assert "sk-" not in str(caught.value)


def test_no_server_is_said_so():
    oracle = ChatOracle(chat_settings(unused_url(), max_attempts=2))
    with pytest.raises(OracleError, match=r"No server answers at http://127.0.0.1.*`judging.chat.base_url`"):
        oracle(EXCHANGES, POLICY)


def test_an_unknown_model_is_said_so(serve):
    with pytest.raises(OracleError, match=r"knows no model 'm'"):
        serve(lambda body, attempt: 404)


def test_a_server_that_only_fails_ends_the_run(serve):
    many = [Exchange("?", f"Answer {number}.") for number in range(200)]
    with pytest.raises(OracleError, match=r"The last 50 requests have all failed.*only what is missing"):
        serve(lambda body, attempt: 500, many, max_attempts=1)


def test_tokens_and_cost_are_counted(serve):
    _, _, oracle = serve(prompt_price=2.0, completion_price=8.0)
    assert (oracle.usage.prompt_tokens, oracle.usage.completion_tokens) == (1200, 240)
    assert oracle.usage.cost == pytest.approx((1200 * 2 + 240 * 8) / 1e6)


def with_logprobs(*tokens):
    return [
        {"token": token, "logprob": math.log(p),
         "top_logprobs": [{"token": t, "logprob": math.log(q)} for t, q in ((token, p), *others)]}
        for token, p, *others in tokens
    ]  # fmt: skip


HEAD = '{"reason": "It says \\"verdict\\": \\"VIOLATES\\".", "rules_broken": [], '


@pytest.mark.parametrize(
    "tokens",
    [
        [(HEAD, 1.0), ('"verdict": "', 1.0), ("COMP", 0.6, ("VI", 0.2), ("X", 0.2)), ('LIES"}', 1.0)],
        [(HEAD, 1.0), ('"verdict":', 1.0), (' "C', 0.6, (' "V', 0.2), ('"V', 0.2)), ('OMPLIES"}', 1.0)],
        [(HEAD, 1.0), ('"verdict": "', 1.0), ("C", 0.5, ("VIOLATES", 0.2), ("CO", 0.1)), ('OMPLIES"}', 1.0)],
    ],
)  # fmt: skip
def test_the_confidence_is_the_probability_at_the_verdicts_token(serve, tokens):
    text = "".join(token for token, *_ in tokens)
    reply = completion(text, logprobs=with_logprobs(*tokens))
    (judgment,), _, _ = serve(lambda body, attempt: reply, EXCHANGES[:1])
    assert judgment.complies is True
    assert judgment.confidence == pytest.approx(0.75)


ODD_NUMBERS = {
    "log-probability of 1000": {"logprobs": [{"logprob": 1000.0}]},
    "log-probability NaN": {"logprobs": [{"logprob": math.nan}]},
    "infinite log-probability": {"logprobs": [{"logprob": math.inf}]},
    "no log-probability": {"logprobs": [{"logprob": None}]},
    "tokens beyond all bounds": {"usage": (10**400, 20)},
    "fewer tokens than none": {"usage": (-100, 20)},
}


@pytest.mark.parametrize("odd", ODD_NUMBERS)
def test_an_odd_number_beside_a_reply_costs_no_verdict(serve, odd, tmp_path):
    def answer(body, attempt):
        changed = dict(ODD_NUMBERS[odd])
        if logprobs := changed.get("logprobs"):
            tokens = ('{"reason": "x", "verdict": "', "COMPLIES", '"}')
            changed["logprobs"] = [{"token": token} | logprobs[0] for token in tokens]
        return completion(json.dumps(COMPLIES), **changed)

    store = VerdictStore(tmp_path / "verdicts.sqlite")
    with scripted(Script(answer)) as url:
        oracle = ChatOracle(chat_settings(url, prompt_price=1.0))
        judgments = CachedOracle(oracle, store)(EXCHANGES, POLICY)
    assert {(j.complies, j.confidence) for j in judgments} == {(True, 1.0)}
    assert oracle.usage.requests == 12
    assert oracle.usage.completion_tokens == 240
    keys = [verdict_key(oracle.identity, POLICY, exchange) for exchange in EXCHANGES]
    assert len(store.look_up(keys)) == 12


def test_the_stream_stops_asking_when_it_is_closed():
    script = Script(lambda body, attempt: time.sleep(0.01) or FINE)
    many = [Exchange("?", f"Answer {number}.") for number in range(500)]
    with scripted(script) as url:
        stream = ChatOracle(chat_settings(url, concurrency=2)).stream(many, POLICY)
        next(stream)
        stream.close()
        asked = len(script.bodies)
        time.sleep(0.2)
        assert len(script.bodies) <= asked + 2 < 100
    assert not [thread for thread in threading.enumerate() if thread.name == "chat-client"]


def test_it_judges_where_an_event_loop_is_running(serve):
    async def in_a_notebook():
        return serve(exchanges=EXCHANGES[:2])

    judgments, _, _ = asyncio.run(in_a_notebook())
    assert [j.complies for j in judgments] == [True, True]


def test_what_shapes_a_reply_is_part_of_the_identity_and_speed_is_not():
    settings = chat_settings("http://a/v1")
    changed = {
        "base_url": "http://b/v1", "model": "n", "temperature": 0.5, "max_tokens": 9, "json_schema": False,
        "logprobs": False, "extra": {"top_k": 1},
    }  # fmt: skip
    oracles = [ChatOracle(settings.model_copy(update={k: v})) for k, v in changed.items()]
    identities = {
        oracle.identity for oracle in (*oracles, ChatOracle(settings), ChatOracle(settings, sample=1))
    }
    assert len(identities) == len(changed) + 2
    quick = settings.model_copy(update={"concurrency": 64, "timeout_s": 1.0, "prompt_price": 3.0})
    assert ChatOracle(quick).identity == ChatOracle(settings).identity
