"""A server answers the prompts over real HTTP: nothing that came is asked for twice, or lost."""

import json
import math
import sqlite3
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
from servers import Script, completion, scripted, unused_url
from tiny_models import PARAMETERS

from realignment.evaluation.answers import collect_prompts, generate_answers
from realignment.evaluation.chat_answers import AnswerError
from realignment.evaluation.text_measures import text_rows
from realignment.parameters import EvaluationParameters
from realignment.records import OracleError

TALK = json.dumps([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}])
PROMPTS = pd.DataFrame(
    {
        "prompt_id": [f"e{n}" for n in range(12)], "prompt": [f"Question {n}?" for n in range(12)],
        "domain": "money", "kind": "regulated",
    }
)  # fmt: skip
NO_PAIRS = pd.DataFrame(columns=["pair_id", "prompt", "messages", "domain", "disposition"])
QUESTIONS = collect_prompts(PROMPTS, NO_PAIRS, judged=True)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr("realignment.chat_client.retry._FIRST_WAIT_S", 0.001)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "new folder/answers.sqlite"


def settings(url, store=None, *, server=None, **changes):
    chat = {"base_url": url, "model": {"before": "old", "after": "new"}, "max_attempts": 2} | (server or {})
    return EvaluationParameters.model_validate(
        {
            "engine": "chat", "chat": chat, "answer_store": None if store is None else str(store),
            "max_new_tokens": 40, "capability": {"questions": None},
        }
        | changes
    )  # fmt: skip


def answer(url, store=None, prompts=QUESTIONS, seed=3, after="version 1", **changes):
    models = {"before": "", "after": after}
    return generate_answers(prompts, models, PARAMETERS, settings(url, store, **changes), seed=seed)


def question(body):
    return body["messages"][-1]["content"]


def reply(body, attempt=1):
    return completion(f" {body['model']}: {question(body)} seed {body.get('seed')}\n")


def test_each_model_answers_every_prompt_with_what_the_parameters_ask_for():
    script = Script(reply)
    prompts = QUESTIONS.assign(messages=[TALK, *[None] * 11])
    with scripted(script) as url:
        table = answer(url, prompts=prompts, server={"extra": {"top_k": 5}, "concurrency": 4})
    assert table["before"].tolist()[1:] == [f"old: Question {n}? seed None" for n in range(1, 12)]
    assert table["after"].tolist()[0] == "new: Yes? seed None"
    assert len(script.bodies) == 24
    for body in script.bodies:
        fields = {name: body[name] for name in ("temperature", "max_tokens", "top_k")}
        assert fields == {"temperature": 0.0, "max_tokens": 40, "top_k": 5}
        assert not {"seed", "response_format", "logprobs"} & set(body)
    assert script.most_under_way <= 4


def test_a_cut_answer_is_cut_and_what_a_server_does_not_tell_is_missing_and_not_zero():
    endings = {"Question 0?": "stop", "Question 1?": "length", "Question 2?": None}

    def say(body, attempt):
        return completion("So far", finish=endings.get(question(body), "stop"))

    with scripted(Script(say)) as url:
        table = answer(url, prompts=QUESTIONS[:3])
    for side in ("before", "after"):
        assert table[f"{side}_cut"].tolist()[:2] == [False, True]
        assert table[f"{side}_cut"].isna().tolist() == [False, False, True]
        assert table[f"{side}_entropy"].isna().all()
    rows = {row["metric"]: row for row in text_rows(table, np.random.default_rng(0))}
    assert "entropy" not in rows
    assert (rows["answers_cut"]["n"], rows["answers_cut"]["after"]) == (2, 0.5)


def test_an_empty_reply_is_an_empty_answer():
    nothing = completion(None, finish="length")
    with scripted(Script(lambda body, attempt: nothing)) as url:
        table = answer(url, prompts=QUESTIONS[:1])
    assert table["after"].tolist() == [""]
    assert table["after_cut"].tolist() == [True]


def test_a_request_that_keeps_failing_is_an_error_and_the_next_run_asks_for_it_alone(store):
    def sometimes(body, attempt):
        return 503 if question(body) in ("Question 3?", "Question 7?") else reply(body)

    script = Script(sometimes)
    with scripted(script) as url:
        with pytest.raises(AnswerError, match=r"2 of 12 requests to old.*503.*evaluation\.chat") as caught:
            answer(url, store)
        assert f"kept in {store}: only what is missing is asked for" in str(caught.value)
        assert len(script.bodies) == 14, "ten answers, and two attempts at each of the others"
        script.answer, script.bodies[:] = reply, []
        table = answer(url, store)
        asked = [(body["model"], question(body)) for body in script.bodies]
        assert sorted(asked)[12:] == [("old", "Question 3?"), ("old", "Question 7?")]
        assert len(asked) == 14, "the model after had not been asked"
        script.bodies.clear()
        pd.testing.assert_frame_equal(answer(url, store), table)
        assert not script.bodies
    assert table["before"].tolist() == [f"old: Question {n}? seed None" for n in range(12)]


def test_without_a_store_the_error_says_that_all_is_asked_for_again():
    with (
        scripted(Script(lambda body, attempt: 400)) as url,
        pytest.raises(AnswerError, match=r"Set `evaluation\.answer_store` to keep"),
    ):
        answer(url, prompts=QUESTIONS[:2])


def test_a_server_that_goes_away_loses_nothing_that_it_had_answered(store):
    with scripted(Script(reply)) as url:
        answer(url, store, prompts=QUESTIONS[:5])
    with pytest.raises(OracleError, match=r"No server answers.*set `evaluation\.chat\.base_url`.*missing"):
        answer(url, store)
    # The first five of the model before are there: the model after is not reached.
    with closing(sqlite3.connect(store)) as connection:
        assert connection.execute("SELECT count(*) FROM answers").fetchone() == (10,)


def test_a_refused_model_is_said_with_the_parameter_that_names_it():
    script = Script(lambda body, attempt: 404)
    with (
        scripted(script) as url,
        pytest.raises(OracleError, match=r"no model 'old'.*`evaluation\.chat\.model`"),
    ):
        answer(url)


def test_every_sample_has_its_own_seed_and_depends_on_seed_and_prompt_alone(store):
    script = Script(reply)
    drawn = {"samples": 3, "temperature": 0.7}
    with scripted(script) as url:
        table = answer(url, store, **drawn)
        assert {body["temperature"] for body in script.bodies} == {0.7}
        assert all(0 <= body["seed"] < 2**31 for body in script.bodies)
        assert table["after"].nunique() == 36
        fewer = answer(url, store, prompts=QUESTIONS.iloc[[7, 2]], samples=2, temperature=0.7)
        assert len(script.bodies) == 72, "all of them are in the store"
        merged = fewer.merge(table, on=["prompt_id", "sample"], suffixes=("", "_all"))
        assert (merged["after"] == merged["after_all"]).all()
        assert (answer(url, store, seed=4, **drawn)["after"] != table["after"]).all()


def test_samples_of_a_server_that_knows_no_seed_are_still_asked_one_by_one(store):
    script = Script(lambda body, attempt: completion(f"{question(body)} {attempt}"))
    with scripted(script) as url:
        table = answer(
            url, store, prompts=QUESTIONS[:1], samples=3, temperature=0.7, server={"extra": {"seed": None}}
        )
    assert all("seed" not in body for body in script.bodies)
    assert table["after"].nunique() == 3


def test_other_weights_under_the_same_name_are_asked_again_and_so_is_everything_on_refresh(store):
    script = Script(reply)
    with scripted(script) as url:
        answer(url, store)
        answer(url, store, after="version 2")
        assert [body["model"] for body in script.bodies[24:]] == ["new"] * 12
        answer(url, store, max_new_tokens=41)
        assert len(script.bodies) == 60
        answer(url, store, refresh=True)
        assert len(script.bodies) == 84


def test_the_model_after_may_have_a_server_of_its_own():
    before, after = Script(reply), Script(reply)
    with scripted(before) as url, scripted(after) as other:
        answer(url, prompts=QUESTIONS[:2], server={"base_url_after": other})
    assert [body["model"] for body in before.bodies] == ["old"] * 2
    assert [body["model"] for body in after.bodies] == ["new"] * 2


def test_no_prompts_ask_no_server():
    table = answer(unused_url(), prompts=QUESTIONS[:0])
    assert table.empty
    assert {"before", "after_cut", "after_entropy"} <= set(table.columns)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"chat": None}, r"`engine: chat` needs its section"),
        ({"repetition_penalty": 1.1}, r"`repetition_penalty` is 1\.1.*`chat\.extra`"),
        ({"server": {"model": {"before": "a"}}}, "after"),
        ({"server": {"base_url": "localhost:8000"}}, "base_url"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_runs(changes, said):
    with pytest.raises(ValueError, match=said):
        settings("http://127.0.0.1:9/v1", **changes)


def test_entropies_are_numbers_that_are_missing():
    with scripted(Script(reply)) as url:
        table = answer(url, prompts=QUESTIONS[:1])
    assert table["after_entropy"].dtype == float
    assert math.isnan(table["after_entropy"][0])
