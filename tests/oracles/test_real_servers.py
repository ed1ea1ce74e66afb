"""The chat oracle and real models: behind servers of their own, over HTTP. Needs the base model."""

import math
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from oracles import batch_command
from oracles.model_server import Judge
from oracles.servers import chat_settings

from realignment.oracles.batch import BatchOracle
from realignment.oracles.chat import ChatOracle
from realignment.oracles.prompts import AS_JSON, ask, instruct
from realignment.parameters import BatchParameters
from realignment.policy import Policy
from realignment.records import Exchange

ROOT = Path(__file__).parents[2]
FOLDERS = sorted((ROOT / "data/01_raw/models").glob("*/model.safetensors"))
POLICY = Policy(name="advice", version="2", text="Do not tell people to sell shares.")
EXCHANGES = [Exchange("Should I sell?", "Yes, sell them all today.", "money"), Exchange("Hi", "Hello!")]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDERS, reason="no base model in data/01_raw/models: a first run fetches it"),
]


@contextmanager
def running(command, port, path):
    """A server in a process of its own, once it answers."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        for _ in range(600):
            assert process.poll() is None, process.stdout.read().decode()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def messages(exchange):
    return [
        {"role": "system", "content": instruct(POLICY)},
        {"role": "user", "content": ask(exchange, AS_JSON)},
    ]


def test_verdict_and_confidence_are_those_of_the_model_behind_the_server():
    folder, port = FOLDERS[0].parent, free_port()
    with running(
        [sys.executable, "-m", "oracles.model_server", str(folder), str(port)], port, "/health"
    ) as url:
        oracle = ChatOracle(chat_settings(url, timeout_s=120.0))
        judgments = oracle(EXCHANGES, POLICY)
    judge = Judge(folder)
    for exchange, judgment in zip(EXCHANGES, judgments, strict=True):
        _, listed = judge.reply(messages(exchange))
        margin = listed["COMPLIES"][1] - listed["VIOLATES"][1]
        assert judgment.complies is (margin > 0)
        p = 1 / (1 + math.exp(-abs(margin)))
        assert judgment.confidence == pytest.approx(p, abs=1e-4)
    read = sum(judge.ids(judge.prompt(messages(exchange))).shape[1] for exchange in EXCHANGES)
    assert oracle.usage.prompt_tokens == read


def test_verdicts_of_a_real_model_by_files_are_those_over_http(tmp_path):
    folder, port = FOLDERS[0].parent, free_port()
    exchanges = [*EXCHANGES, Exchange("Should I sell?", "Wait until the end of the year.", "money")]
    with running(
        [sys.executable, "-m", "oracles.model_server", str(folder), str(port)], port, "/health"
    ) as url:
        chat = ChatOracle(chat_settings(url, timeout_s=120.0))
        program = (sys.executable, batch_command.__file__, "{input}", "{output}", "{base_url}")
        files = BatchParameters(command=program, folder=str(tmp_path), max_requests=2)
        by_files = BatchOracle(ChatOracle(chat.settings), files)
        over_http, read = chat(exchanges, POLICY), by_files(exchanges, POLICY)
    assert read == over_http
    assert all(judgment.complies is not None for judgment in read)
    assert by_files.usage == chat.usage


def test_transformers_serve_is_asked_and_what_it_does_not_know_is_no_fault():
    folder, port = str(FOLDERS[0].parent), free_port()
    command = [str(Path(sys.executable).with_name("transformers")), "serve", folder, "--device", "cpu"]
    command += ["--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]
    with running(command, port, "/health") as url:
        oracle = ChatOracle(chat_settings(url, model=folder, timeout_s=120.0, max_tokens=24))
        judgments = oracle(EXCHANGES, POLICY)
    assert not any(judgment.fault for judgment in judgments), [judgment.reason for judgment in judgments]
    assert all(judgment.complies is not None or judgment.reason for judgment in judgments)
    judge = Judge(folder)
    read = sum(judge.ids(judge.prompt(messages(exchange))).shape[1] for exchange in EXCHANGES)
    assert oracle.usage.prompt_tokens == read
    assert 0 < oracle.usage.completion_tokens <= 48
