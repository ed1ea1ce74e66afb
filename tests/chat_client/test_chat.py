"""Replies over real HTTP: in order, with what each request asks for, and a fault where there is none."""

import pytest
from servers import Script, chat_settings, completion, scripted, unused_url

from realignment.chat_client.chat import Reply, Request, complete_chats
from realignment.oracles import OracleError


def requests(*texts, **body):
    return [Request([{"role": "user", "content": text}], body) for text in texts]


def last_message(body):
    return body["messages"][-1]["content"]


def run(script, chats, **settings):
    with scripted(script) as url:
        return complete_chats(chat_settings(url, **settings), chats, section="stage.chat")


def test_replies_come_in_the_order_of_the_requests():
    texts = [f"question {n}" for n in range(40)]
    replies = run(
        Script(lambda body, _: completion(last_message(body).upper())), requests(*texts), concurrency=8
    )
    assert replies == [Reply(text.upper(), True) for text in texts]


def test_each_request_adds_its_own_fields_to_those_of_the_server():
    script = Script(lambda body, _: completion("yes"))
    run(script, requests("a", temperature=0.7, seed=3), max_tokens=9, extra={"top_k": 5})
    (body,) = script.bodies
    fields = {name: body[name] for name in ("model", "temperature", "seed", "max_tokens", "top_k")}
    assert fields == {"model": "m", "temperature": 0.7, "seed": 3, "max_tokens": 9, "top_k": 5}


def test_a_cut_reply_is_not_complete():
    (reply,) = run(Script(lambda body, _: completion("so far", finish="length")), requests("a"))
    assert reply == Reply("so far", False)


def test_a_request_that_keeps_failing_is_a_fault_and_the_others_are_answered():
    script = Script(lambda body, _: 400 if last_message(body) == "bad" else completion("fine"))
    good, bad, other = run(script, requests("good", "bad", "other"))
    assert (good.text, other.text) == ("fine", "fine")
    assert bad.fault.startswith("no reply: ")
    assert "400" in bad.fault


def test_a_request_is_repeated_after_a_transient_fault():
    script = Script(lambda body, attempt: (503, {"Retry-After": "0"}) if attempt == 1 else completion("fine"))
    assert run(script, requests("a"))[0].text == "fine"
    assert len(script.bodies) == 2


def test_no_server_is_said_at_once():
    with pytest.raises(OracleError, match=r"No server answers.*Start it, or set `stage\.chat\.base_url`"):
        complete_chats(chat_settings(unused_url(), max_attempts=1), requests("a"), section="stage.chat")


def test_nothing_asked_is_nothing_answered():
    assert complete_chats(chat_settings(unused_url()), [], section="stage.chat") == []
