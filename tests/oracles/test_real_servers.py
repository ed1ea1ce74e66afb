"""The chat oracle and real models: behind servers of their own, over HTTP. Needs the base model."""

import math
import sys

import batch_command
import pytest
from base_model import free_port, running, transformers_serve
from model_server import Judge
from servers import chat_settings

from realignment.oracles.batch import BatchOracle
from realignment.oracles.chat import ChatOracle
from realignment.oracles.prompts import AS_JSON, build_system_message, build_user_message
from realignment.parameters import BatchParameters
from realignment.policy import Policy
from realignment.records import Exchange

POLICY = Policy(name="advice", version="2", text="Do not tell people to sell shares.")
EXCHANGES = [Exchange("Should I sell?", "Yes, sell them all today.", "money"), Exchange("Hi", "Hello!")]

pytestmark = pytest.mark.slow


def messages(exchange):
    return [
        {"role": "system", "content": build_system_message(POLICY)},
        {"role": "user", "content": build_user_message(exchange, AS_JSON)},
    ]


def judge_server(folder):
    port = free_port()
    return running([sys.executable, "-m", "model_server", str(folder), str(port)], port)


def test_verdict_and_confidence_are_those_of_the_model_behind_the_server(base_model):
    with judge_server(base_model) as url:
        oracle = ChatOracle(chat_settings(url, timeout_s=120.0))
        judgments = oracle(EXCHANGES, POLICY)
    judge = Judge(base_model)
    for exchange, judgment in zip(EXCHANGES, judgments, strict=True):
        _, listed = judge.reply(messages(exchange))
        margin = listed["COMPLIES"][1] - listed["VIOLATES"][1]
        assert judgment.complies is (margin > 0)
        p = 1 / (1 + math.exp(-abs(margin)))
        assert judgment.confidence == pytest.approx(p, abs=1e-4)
    read = sum(judge.ids(judge.prompt(messages(exchange))).shape[1] for exchange in EXCHANGES)
    assert oracle.usage.prompt_tokens == read


def test_verdicts_of_a_real_model_by_files_are_those_over_http(base_model, tmp_path):
    exchanges = [*EXCHANGES, Exchange("Should I sell?", "Wait until the end of the year.", "money")]
    with judge_server(base_model) as url:
        chat = ChatOracle(chat_settings(url, timeout_s=120.0))
        program = (sys.executable, batch_command.__file__, "{input}", "{output}", "{base_url}")
        files = BatchParameters(command=program, folder=str(tmp_path), max_requests=2)
        by_files = BatchOracle(ChatOracle(chat.settings), files)
        over_http, read = chat(exchanges, POLICY), by_files(exchanges, POLICY)
    assert read == over_http
    assert all(judgment.complies is not None for judgment in read)
    assert by_files.usage == chat.usage


def test_transformers_serve_is_asked_and_what_it_does_not_know_is_no_fault(base_model):
    with transformers_serve(base_model) as url:
        oracle = ChatOracle(chat_settings(url, model=str(base_model), timeout_s=120.0, max_tokens=24))
        judgments = oracle(EXCHANGES, POLICY)
    assert not any(judgment.fault for judgment in judgments), [judgment.reason for judgment in judgments]
    assert all(judgment.complies is not None or judgment.reason for judgment in judgments)
    judge = Judge(base_model)
    read = sum(judge.ids(judge.prompt(messages(exchange))).shape[1] for exchange in EXCHANGES)
    assert oracle.usage.prompt_tokens == read
    assert 0 < oracle.usage.completion_tokens <= 48
