"""The chat oracle by files, with a real command that asks a real server and fails in every way."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from servers import COMPLIES, VIOLATES, Script, chat_settings, completion, exchange_of, scripted

from realignment.oracles import OracleError
from realignment.oracles.batch import BatchOracle
from realignment.oracles.batch_files import write_partitions, write_request
from realignment.oracles.cached import CachedOracle, VerdictStore
from realignment.oracles.chat import ChatOracle
from realignment.oracles.commands import fill_placeholders
from realignment.parameters import BatchParameters
from realignment.policy import parse_policy
from realignment.records import Exchange

ROOT = Path(__file__).parents[2]
COMMAND = str(ROOT / "tests/support/batch_command.py")
RULES = [{"id": "no-sell", "description": "No order.", "check": {"kind": "forbidden", "patterns": ["sell"]}}]
POLICY = parse_policy({"name": "advice", "version": "2", "text": "Be careful.", "rules": RULES}, "test")
EXCHANGES = [Exchange(f"Should I {n % 4}?", f"Answer {n}.", "money") for n in range(12)]


def by_number(body, attempt):
    """Odd answers violate, with a confidence of its own for each; the text is that of a real reply."""
    number = int(exchange_of(body)["response"].split()[1].rstrip("."))
    reply = VIOLATES | {"rules_broken": ["no-sell"]} if number % 2 else COMPLIES
    return completion(json.dumps(reply | {"reason": f"It is number {number} — ¼ 東."}))


@dataclass
class Batch:
    """An oracle in a folder, the server's script, and what has been started."""

    folder: Path
    url: str
    script: Script

    def oracle(self, fault="", refresh=False, chat=None, **settings):
        command = (sys.executable, COMMAND, "{input}", "{output}", "{base_url}", *([fault] if fault else []))
        settings = {"command": command, "folder": str(self.folder)} | settings
        return BatchOracle(
            ChatOracle(chat_settings(self.url, **(chat or {}))), BatchParameters(**settings), refresh
        )

    def with_store(self, oracle):
        return CachedOracle(oracle, VerdictStore(self.folder.parent / "verdicts.sqlite"), oracle.refresh)

    @property
    def starts(self):
        """Requests of every start of the command."""
        files = (self.folder / "starts").read_text().splitlines() if self.folder.exists() else []
        return [len(Path(file).read_text().splitlines()) for file in files]


@pytest.fixture
def batch(tmp_path):
    script = Script(by_number)
    with scripted(script) as url:
        yield Batch(tmp_path / "batches", url, script)


def test_verdicts_and_cost_are_those_of_chat_over_http(batch):
    chat = {"prompt_price": 2.0, "completion_price": 8.0}
    by_http, by_files = ChatOracle(chat_settings(batch.url, **chat)), batch.oracle(chat=chat)
    over_http = by_http(EXCHANGES, POLICY)
    assert by_files(EXCHANGES, POLICY) == over_http
    assert {j.complies for j in over_http} == {True, False}
    assert by_files.usage == by_http.usage
    assert (by_files.name, by_files.identity) == (by_http.name, by_http.identity)


def test_a_request_over_http_and_one_in_a_file_are_equal(batch):
    chat = {"extra": {"max_tokens": None, "top_p": 0.9}}
    ChatOracle(chat_settings(batch.url, **chat))(EXCHANGES, POLICY)
    bodies, batch.script.bodies = batch.script.bodies, []
    batch.oracle(chat=chat)(EXCHANGES, POLICY)
    by_text = {json.dumps(body, sort_keys=True) for body in bodies}
    assert {json.dumps(body, sort_keys=True) for body in batch.script.bodies} == by_text
    assert len(by_text) == len(EXCHANGES)


def test_requests_about_one_prompt_stand_side_by_side_after_the_policy(batch):
    batch.oracle()(EXCHANGES, POLICY)
    (file,) = batch.folder.glob("*/requests.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [set(line) for line in lines] == [{"custom_id", "method", "url", "body"}] * 12
    prompts = [exchange_of(line["body"])["prompt"] for line in lines]
    assert prompts == sorted(prompts)
    assert [line["body"]["messages"][0]["role"] for line in lines] == ["system"] * 12
    assert len({line["body"]["messages"][0]["content"] for line in lines}) == 1


def test_equal_exchanges_are_asked_about_once(batch):
    oracle = batch.oracle()
    judgments = oracle([EXCHANGES[1], EXCHANGES[0], EXCHANGES[1]], POLICY)
    assert [j.complies for j in judgments] == [False, True, False]
    assert (batch.starts, oracle.usage.asked, oracle.usage.requests) == ([2], 3, 2)


def test_nothing_to_judge_starts_nothing(batch):
    assert batch.oracle(command="no-such-program {input} {output}")([], POLICY) == []
    assert not batch.folder.exists()


@pytest.mark.parametrize(
    ("limits", "sizes"),
    [({"max_requests": 5}, [5, 5, 2]), ({"max_requests": 12}, [12]), ({"max_megabytes": 1e-6}, [1] * 12)],
)
def test_files_hold_what_the_limits_allow(batch, limits, sizes):
    judgments = batch.oracle(**limits)(EXCHANGES, POLICY)
    assert [j.complies for j in judgments] == [True, False] * 6
    assert batch.starts == sizes


def test_a_file_of_requests_is_not_larger_than_the_limit(tmp_path):
    requests = [write_request(exchange, {"messages": exchange.response * 20}) for exchange in EXCHANGES]
    limit = 3 * max(len(request.line) for request in requests)
    parts = list(write_partitions(requests, tmp_path, max_requests=100, max_bytes=limit))
    assert [len(part.requests) for part in parts][:-1] == [3] * (len(parts) - 1)
    assert all(part.input.stat().st_size <= limit for part in parts)
    written = b"".join(part.input.read_bytes() for part in parts)
    assert written == b"".join(request.line for request in requests)
    assert not list(tmp_path.glob(".requests*"))


# --- what the command writes


@pytest.mark.parametrize(
    "fault", ["reversed", "unknown", "doubled", "no JSON", "error, then answered"], ids=str
)
def test_replies_are_found_by_their_id_whatever_stands_around_them(batch, fault):
    judgments = batch.oracle(fault)(EXCHANGES, POLICY)
    first = min(range(12), key=lambda n: (EXCHANGES[n].prompt, EXCHANGES[n].response))
    assert [j.complies for n, j in enumerate(judgments) if n != first] == [
        n % 2 == 0 for n in range(12) if n != first
    ]
    if fault == "no JSON":  # its lines took the place of the first reply
        assert judgments[first].fault
    else:
        assert judgments[first].complies is (first % 2 == 0)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("missing", "wrote no line for this request"),
        ("half a line", "wrote no line for this request"),
        ("contradicted", "two, with different verdicts"),
        ("vllm error", "status 400: \"too long\""),
        ("vllm error object", "status 400: too long"),
        ("openai error", "status 400: too long"),
        ("openai expired", "no response: too late"),
        ("a body beside an error", "status 200: \"content filter\""),
        ("a body beside a status", "status 500: {\"id\": \"1\""),
        ("no completion", "expected a chat completion, and in its choices"),
    ],
)  # fmt: skip
def test_a_request_without_an_answer_is_unscored_and_asked_again(batch, fault, reason):
    judgments = batch.with_store(batch.oracle(fault))(EXCHANGES, POLICY)
    (unscored,) = [j for j in judgments if j.complies is None]
    assert unscored.fault
    assert reason in unscored.reason
    again = batch.with_store(batch.oracle())(EXCHANGES, POLICY)
    assert [j.complies for j in again] == [True, False] * 6
    assert batch.starts == [12, 1]


def test_what_chat_cannot_read_is_unscored_for_the_same_reason(batch):
    texts = ["{", '{"verdict": "MAYBE"}', json.dumps(COMPLIES | {"rules_broken": ["no-sell"]}), ""]
    batch.script.answer = lambda body, attempt: completion(texts[len(exchange_of(body)["prompt"]) % 4])
    exchanges = [Exchange("p" * length, "r") for length in range(4)]
    judgments = batch.oracle()(exchanges, POLICY)
    assert judgments == ChatOracle(chat_settings(batch.url))(exchanges, POLICY)
    assert all(j.complies is None and not j.fault for j in judgments)


def test_odd_numbers_in_a_file_of_replies_end_no_run(batch):
    """Their file is not judged yet, so that a run that ended there would end there again."""
    tokens = [{"token": t, "logprob": 1000.0} for t in ('{"reason": "x", "verdict": "', "COMPLIES", '"}')]
    odd = [
        completion(json.dumps(COMPLIES), logprobs=tokens),
        completion(json.dumps(COMPLIES), usage=(10**400, 20)),
        completion(f'{{"verdict": "COMPLIES", "reason": {"9" * 5000}}}'),
        completion(json.dumps(COMPLIES), logprobs=[token | {"logprob": None} for token in tokens]),
    ]
    batch.script.answer = lambda body, attempt: odd[len(exchange_of(body)["prompt"]) % 4]
    judgments = batch.with_store(batch.oracle())([Exchange("p" * length, "r") for length in range(4)], POLICY)
    assert [j.complies for j in judgments] == [True, True, None, True]
    assert judgments[2].reason.startswith("unreadable reply: not one JSON object")


def test_a_reply_that_was_cut_is_unscored(batch):
    batch.script.answer = lambda body, attempt: completion('{"reason": "It', finish="length")
    (judgment,) = batch.oracle()(EXCHANGES[:1], POLICY)
    assert "cut at 256 tokens" in judgment.reason


def test_an_error_of_the_server_reaches_the_judgment(batch):
    batch.script.answer = lambda body, attempt: 400
    (judgment,) = batch.oracle()(EXCHANGES[:1], POLICY)
    assert judgment.reason == "no reply: status 400: scripted"


# --- commands that fail


def test_a_program_that_is_not_there_is_an_error_before_anything_is_written(batch):
    oracle = batch.with_store(batch.oracle(command="no-such-program {input} {output}"))
    with pytest.raises(OracleError, match=r"no program 'no-such-program'.*judging\.vllm_batch\.command"):
        oracle(EXCHANGES, POLICY)
    assert not batch.folder.exists()


def test_a_command_that_fails_says_so_and_loses_nothing(batch):
    with pytest.raises(OracleError) as failed:
        batch.with_store(batch.oracle("fails", max_requests=8))(EXCHANGES, POLICY)
    for phrase in ("exit code 3", "answered 4 of 8 requests", "CUDA out of memory", "command.log"):
        assert phrase in str(failed.value)
    oracle = batch.with_store(batch.oracle())
    assert [j.complies for j in oracle(EXCHANGES, POLICY)] == [True, False] * 6
    assert (batch.starts, oracle.usage.stored, oracle.usage.requests) == ([8, 8], 4, 8)


def test_a_failed_command_loses_nothing_where_no_store_keeps_the_verdicts(batch):
    with pytest.raises(OracleError, match="answered 6 of 12"):
        batch.oracle("fails")(EXCHANGES, POLICY)
    assert [j.complies for j in batch.oracle()(EXCHANGES, POLICY)] == [True, False] * 6
    assert batch.starts == [12, 6]


def test_a_command_that_ends_well_and_writes_nothing_is_an_error(batch):
    with pytest.raises(OracleError, match=r"wrote nothing in the place of \{output\}"):
        batch.oracle("writes nothing")(EXCHANGES, POLICY)


def test_a_command_that_only_refuses_ends_the_run_and_is_not_believed_later(batch):
    exchanges = [Exchange("p", f"Answer {n}.") for n in range(60)]
    with pytest.raises(
        OracleError, match=r"none of the 60 requests.*status 404: The model `m` does not exist"
    ):
        batch.oracle("all refused")(exchanges, POLICY)
    assert [j.complies for j in batch.oracle()(exchanges, POLICY)] == [True, False] * 30


def test_a_folder_that_cannot_be_written_is_an_error_of_the_oracle(batch):
    batch.folder.write_text("a file")
    with pytest.raises(OracleError, match=r"judging\.vllm_batch\.folder"):
        batch.oracle()(EXCHANGES, POLICY)


# --- runs that are killed


def leave_finished(batch):
    """As a run leaves it that is killed between the command's end and the first verdict."""
    oracle = batch.oracle()
    verdicts = oracle.stream(EXCHANGES, POLICY)
    next(verdicts)
    verdicts.close()


def test_finished_replies_of_a_killed_run_are_used(batch):
    leave_finished(batch)
    oracle = batch.oracle()
    assert [j.complies for j in oracle(EXCHANGES, POLICY)] == [True, False] * 6
    assert (batch.starts, oracle.usage.requests) == ([12], 0)


@pytest.mark.parametrize("other", ["exchanges", "settings", "policy"])
def test_replies_to_other_requests_are_not_used(batch, other):
    leave_finished(batch)
    exchanges = EXCHANGES[:-1] if other == "exchanges" else EXCHANGES
    policy = POLICY.model_copy(update={"text": "Be bold."}) if other == "policy" else POLICY
    batch.oracle(chat={"max_tokens": 99} if other == "settings" else {})(exchanges, policy)
    assert len(batch.starts) == 2


def test_replies_are_used_once_and_a_refresh_uses_none(batch):
    leave_finished(batch)
    batch.oracle(refresh=True)(EXCHANGES, POLICY)
    batch.oracle()(EXCHANGES, POLICY)
    assert batch.starts == [12, 12, 12]


def test_files_are_deleted_where_they_are_not_kept(batch):
    batch.oracle(keep_files=False, max_requests=5)(EXCHANGES, POLICY)
    assert [path.name for path in batch.folder.iterdir()] == ["starts"]


RUN = """
import sys
from test_batch import *
folder, url = Path(sys.argv[1]), sys.argv[2]
batch = Batch(folder, url, None)
print("begun", flush=True)
batch.with_store(batch.oracle(sys.argv[3], max_requests=8))(EXCHANGES, POLICY)
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_ended_while_its_command_works_goes_on_with_the_rest(batch, ending):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT / "tests/oracles")])}
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, str(batch.folder), batch.url, "hangs"], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not (hanging := list(batch.folder.glob("*/hangs"))):
            assert run.poll() is None
            time.sleep(0.05)
        command = int(hanging[0].read_text())
        run.send_signal(ending)
        run.wait(60)
        if ending == signal.SIGINT:
            with pytest.raises(ProcessLookupError):
                os.kill(command, 0)
        else:  # nothing runs in a process that is killed so: its command is left
            os.kill(command, signal.SIGKILL)
    finally:
        run.kill()
    oracle = batch.with_store(batch.oracle(max_requests=8))
    assert [j.complies for j in oracle(EXCHANGES, POLICY)] == [True, False] * 6
    assert batch.starts == [8, 4, 4], (
        "four of the first file were answered; then its rest, then the second file"
    )


# --- parameters


def test_a_command_is_a_list_or_one_text():
    split = BatchParameters(command="my 'own tool' --in={input} {output}", folder="f").command
    assert split == ("my", "own tool", "--in={input}", "{output}")
    filled = fill_placeholders([*split, '{"a": "{model}"}'], {"input": "i", "output": "o", "model": "m"})
    assert filled == ["my", "own tool", "--in=i", "o", '{"a": "m"}']


@pytest.mark.parametrize("command", ["vllm run-batch -i {input}", "tool -o {output}", ["tool"], "", []])
def test_a_command_must_name_both_files(command):
    with pytest.raises(ValueError, match=r"must say where|at least 1"):
        BatchParameters(command=command, folder="f")
