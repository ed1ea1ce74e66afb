"""Verdicts that were paid for are kept, whatever ends the run; nothing is asked twice."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from servers import COMPLIES, VIOLATES, Script, chat_settings, completion, exchange_of, scripted

from realignment.chat_client.store import BATCH_SIZE, StoreError
from realignment.oracles import Usage, judge_in_order
from realignment.oracles.cached import CachedOracle, VerdictStore, verdict_key
from realignment.oracles.chat import ChatOracle
from realignment.policy import Policy
from realignment.records import Exchange, Judgment

ROOT = Path(__file__).parents[2]
POLICY = Policy(name="advice", version="2", text="Be careful.")
EXCHANGES = [Exchange("Should I?", f"Answer {number}.", "money") for number in range(200)]


@dataclass
class Counting:
    """Costs, and counts what it was asked; of odd answers it says that they violate."""

    identity: str = "counting"
    faults: tuple = ()
    stop_after: int | None = None
    asked: list = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    name: str = "counting"

    def __call__(self, exchanges, policy):
        return judge_in_order(self, exchanges, policy)

    def stream(self, exchanges, policy):
        for position, exchange in enumerate(exchanges):
            if self.stop_after is not None and len(self.asked) >= self.stop_after:
                raise RuntimeError("the oracle broke down")
            self.asked.append(exchange)
            fault = exchange.response in self.faults
            number = int(exchange.response.split()[1].rstrip("."))
            complies = None if fault else number % 2 == 0
            broken = ("no-sell", "short") if complies is False else ()
            yield position, Judgment(complies, 0.75, broken, f"number {number}", self.name, fault)


@pytest.fixture
def store(tmp_path):
    return VerdictStore(tmp_path / "new folder" / "verdicts.sqlite")


def test_what_was_asked_is_answered_from_the_store_unchanged(store):
    first, second = Counting(), Counting()
    judgments = CachedOracle(first, store)(EXCHANGES, POLICY)
    again = CachedOracle(second, store)(EXCHANGES, POLICY)
    assert again == judgments == Counting()(EXCHANGES, POLICY)
    assert (len(first.asked), len(second.asked)) == (200, 0)
    assert second.usage.stored == 200


def test_only_what_is_missing_is_asked(store):
    CachedOracle(Counting(), store)(EXCHANGES[::2], POLICY)
    oracle = Counting()
    assert CachedOracle(oracle, store)(EXCHANGES, POLICY) == Counting()(EXCHANGES, POLICY)
    assert oracle.asked == EXCHANGES[1::2]


def test_the_same_exchange_is_asked_once(store):
    oracle = Counting()
    judgments = CachedOracle(oracle, store)([EXCHANGES[1]] * 5 + [EXCHANGES[2]], POLICY)
    assert [j.complies for j in judgments] == [False] * 5 + [True]
    assert oracle.asked == [EXCHANGES[1], EXCHANGES[2]]


def test_refresh_asks_again_and_replaces(store):
    CachedOracle(Counting(faults=()), store)(EXCHANGES[:3], POLICY)

    class Changed(Counting):
        def stream(self, exchanges, policy):
            for position, judgment in super().stream(exchanges, policy):
                yield position, Judgment(not judgment.complies, 1.0, oracle=self.name)

    changed = CachedOracle(Changed(), store, refresh=True)(EXCHANGES[:3], POLICY)
    assert [j.complies for j in changed] == [False, True, False]
    assert CachedOracle(Counting(), store)(EXCHANGES[:3], POLICY) == changed


def test_another_policy_oracle_or_text_is_another_key():
    exchange = Exchange("p", "r", "d")
    keys = {
        verdict_key("oracle", POLICY, exchange),
        verdict_key("oracle 2", POLICY, exchange),
        verdict_key("oracle", Policy(name="advice", version="2", text="Be bold."), exchange),
        verdict_key("oracle", POLICY, Exchange("pr", "", "d")),
        verdict_key("oracle", POLICY, Exchange("p", "rd", None)),
        verdict_key("oracle", POLICY, Exchange("p", "r", None)),
        verdict_key("oracle", POLICY, Exchange("p", "r", "")),
    }
    assert len(keys) == 7
    assert verdict_key("oracle", POLICY, Exchange("p", "r", "d")) in keys


def test_another_policy_never_reuses_a_verdict(store):
    CachedOracle(Counting(), store)(EXCHANGES, POLICY)
    oracle = Counting()
    CachedOracle(oracle, store)(EXCHANGES, Policy(name="advice", version="2", text="Be bold."))
    assert len(oracle.asked) == 200


def test_a_fault_is_not_kept_and_asked_again(store):
    judgments = CachedOracle(Counting(faults=("Answer 3.",)), store)(EXCHANGES[:6], POLICY)
    assert [j.complies for j in judgments] == [True, False, True, None, True, False]
    oracle = Counting()
    assert CachedOracle(oracle, store)(EXCHANGES[:6], POLICY)[3].complies is False
    assert oracle.asked == [EXCHANGES[3]]


def test_an_unreadable_reply_is_kept(store):
    script = Script(lambda body, attempt: completion("Hm."))
    with scripted(script) as url:
        for _ in range(2):
            judgments = CachedOracle(ChatOracle(chat_settings(url)), store)(EXCHANGES[:3], POLICY)
            assert {j.complies for j in judgments} == {None}
    assert len(script.bodies) == 3


def test_an_oracle_that_breaks_down_loses_nothing(store):
    with pytest.raises(RuntimeError, match="broke down"):
        CachedOracle(Counting(stop_after=90), store)(EXCHANGES, POLICY)
    oracle = Counting()
    CachedOracle(oracle, store)(EXCHANGES, POLICY)
    assert len(oracle.asked) == 110


def test_a_full_disk_is_said_so_and_what_is_stored_stays(store, monkeypatch):
    CachedOracle(Counting(), store)(EXCHANGES[:100], POLICY)
    with closing(sqlite3.connect(store.path)) as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connect = sqlite3.connect

    def connect_to_a_full_disk(*args, **kwargs):
        connection = connect(*args, **kwargs)
        connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLite then fails as on a full disk
        return connection

    long = [Exchange("?" * 9000, f"Answer {number}.") for number in range(300)]
    with monkeypatch.context() as full:
        full.setattr(sqlite3, "connect", connect_to_a_full_disk)
        with pytest.raises(StoreError, match=r"disk is full.*stays.*only what is missing") as caught:
            CachedOracle(Counting(), store)(long, POLICY)
        assert str(store.path) in str(caught.value)
    oracle = Counting()
    CachedOracle(oracle, store)(EXCHANGES[:100], POLICY)
    assert not oracle.asked


def has(sql):
    """Another program's file, or a store that somebody has changed."""

    def make(path):
        CachedOracle(Counting(), VerdictStore(path))(EXCHANGES, POLICY)
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(sql)

    return make


def overwrite(path):
    CachedOracle(Counting(), VerdictStore(path))(EXCHANGES, POLICY)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"x" * (path.stat().st_size - 4096))


OPEN, DAMAGED = "folder writable", "Move it away"
BROKEN = {
    "a folder in its place": (lambda path: path.mkdir(parents=True), "unable to open database file", OPEN),
    "a file where its folder should be": (
        lambda path: path.parent.write_text(""),
        "exists",
        "Make its folder",
    ),
    "a file that is no database": (lambda path: path.write_text("x" * 5000), "is not a database", DAMAGED),
    "a file whose pages are overwritten": (overwrite, "malformed", DAMAGED),
    "another program's table": (
        has("DROP TABLE verdicts; CREATE TABLE verdicts (a)"),
        "no such col",
        DAMAGED,
    ),
    "a table of more columns": (has("ALTER TABLE verdicts ADD COLUMN a"), "a row is no verdict", DAMAGED),
    "rules that are no list": (has("UPDATE verdicts SET rules_broken = '['"), "a row is no verdict", DAMAGED),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_store_that_cannot_be_used_is_an_error_before_anything_is_asked(tmp_path, case):
    break_it, message, advice = BROKEN[case]
    path = tmp_path / "folder" / "verdicts.sqlite"
    path.parent.mkdir()
    if case == "a file where its folder should be":
        path.parent.rmdir()
    break_it(path)
    oracle = Counting()
    with pytest.raises(StoreError, match=message) as caught:
        CachedOracle(oracle, VerdictStore(path))(EXCHANGES, POLICY)
    assert not oracle.asked
    assert advice in str(caught.value)
    assert "safe" not in str(caught.value)
    assert "stays" not in str(caught.value), "nobody knows what is left of it"


def test_a_verdict_that_cannot_be_kept_is_not_put_down_to_the_disk(store):
    with pytest.raises(StoreError, match=r"NOT NULL.*fault of the program") as caught:
        store.write({b"key": Judgment(True, float("nan"), oracle="odd")})
    assert "room" not in str(caught.value)


def test_a_store_that_another_process_keeps_says_so(store, monkeypatch):
    monkeypatch.setattr("realignment.chat_client.store._BUSY_S", 0.1)
    CachedOracle(Counting(), store)(EXCHANGES[:1], POLICY)
    with closing(sqlite3.connect(store.path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"locked.*Another process"):
            CachedOracle(Counting(), store)(EXCHANGES, POLICY)


TO_A_LIMIT = """
import resource, sys
from pathlib import Path
from test_cached import MANY, POLICY, Counting
from realignment.oracles.cached import CachedOracle, VerdictStore

resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
CachedOracle(Counting(), VerdictStore(Path(sys.argv[1])))(MANY, POLICY)
"""
MANY = [Exchange("Should I?", f"Answer {number}.", "money") for number in range(2000)]


def test_no_more_room_to_write_loses_no_verdict_that_was_written_and_the_next_run_goes_on(store):
    """A real refusal of the system to write, in the middle of a run: of a file of 60 kB, not of a disk."""
    ended = subprocess.run(
        [sys.executable, "-c", TO_A_LIMIT, store.path], stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT / "tests/oracles")])},
    )  # fmt: skip
    assert ended.returncode == 1
    assert "StoreError" in ended.stderr
    assert "disk I/O error. See to the disk, and to limits" in ended.stderr
    oracle = Counting()
    assert CachedOracle(oracle, store)(MANY, POLICY) == Counting()(MANY, POLICY)
    assert oracle.usage.stored in range(BATCH_SIZE, 2000, BATCH_SIZE), "whole batches, and not all of them"
    assert len(oracle.asked) == 2000 - oracle.usage.stored


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a disk")
def test_a_disk_that_is_really_full_loses_no_verdict_that_was_written(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a disk")
    try:
        store = VerdictStore(disk / "verdicts.sqlite")
        first = Counting()
        with pytest.raises(StoreError, match=r"disk is full\. What it has stays\. Make room"):
            CachedOracle(first, store)(MANY, POLICY)
        subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
        second = Counting()
        assert CachedOracle(second, store)(MANY, POLICY) == Counting()(MANY, POLICY)
        assert 0 < second.usage.stored < len(first.asked) < 2000
        assert len(first.asked) - second.usage.stored <= BATCH_SIZE
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write a file that is read-only")
def test_a_read_only_store_is_an_error_before_anything_is_asked(store):
    CachedOracle(Counting(), store)(EXCHANGES[:1], POLICY)
    store.path.chmod(0o444)
    store.path.parent.chmod(0o555)
    oracle = Counting()
    with pytest.raises(StoreError, match="readonly"):
        CachedOracle(oracle, store)(EXCHANGES, POLICY)
    assert not oracle.asked


JUDGE = """
import sys
from pathlib import Path
from realignment.oracles.cached import CachedOracle, VerdictStore
from realignment.oracles.chat import ChatOracle
from realignment.parameters import ChatParameters
from realignment.policy import Policy
from realignment.records import Exchange

settings = ChatParameters(base_url=sys.argv[1], model="m", concurrency=8)
exchanges = [Exchange("Should I?", f"Answer {number}.", "money") for number in range(int(sys.argv[3]), int(sys.argv[4]))]
policy = Policy(name="advice", version="2", text="Be careful.")
judgments = CachedOracle(ChatOracle(settings), VerdictStore(Path(sys.argv[2])))(exchanges, policy)
print(len([j for j in judgments if j.complies is not None]))
"""  # fmt: skip  # noqa: E501


def judge_in_another_process(url, store, start=0, end=200):
    return subprocess.Popen(
        [sys.executable, "-c", JUDGE, url, str(store.path), str(start), str(end)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def by_number(body, attempt):
    odd = int(exchange_of(body)["response"].split()[1].rstrip(".")) % 2
    return completion(json.dumps(VIOLATES if odd else COMPLIES))


@pytest.mark.slow
def test_a_run_killed_on_the_way_goes_on_with_what_is_missing(store):
    script = Script(lambda body, attempt: time.sleep(0.02) or by_number(body, attempt))
    with scripted(script) as url:
        first = judge_in_another_process(url, store)
        while len(script.bodies) < 120:
            assert first.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)
        first.send_signal(signal.SIGKILL)
        first.wait()
        before = len(script.bodies)
        n_stored = len(store.look_up([verdict_key(oracle_at(url).identity, POLICY, e) for e in EXCHANGES]))
        assert before < 200
        assert before - n_stored <= BATCH_SIZE + 2 * 8, (
            "a batch, and the requests under way, are all it may lose"
        )
        second = judge_in_another_process(url, store)
        assert second.communicate()[0].strip() == "200"
    assert len(script.bodies) - before == 200 - n_stored
    assert len({e["response"] for e in script.asked()}) == 200


def oracle_at(url):
    return ChatOracle(chat_settings(url))


@pytest.mark.slow
def test_two_processes_share_a_store(store):
    with scripted(Script(by_number)) as url:
        processes = [judge_in_another_process(url, store, start, start + 120) for start in (0, 80)]
        assert [process.communicate()[0].strip() for process in processes] == ["120", "120"]
        assert [process.returncode for process in processes] == [0, 0]
        stored = store.look_up([verdict_key(oracle_at(url).identity, POLICY, e) for e in EXCHANGES])
    assert len(stored) == 200
    assert sum(j.complies for j in stored.values()) == 100


def test_many_writers_at_a_time_lose_nothing(store):
    parts = [EXCHANGES[start : start + 40] for start in range(0, 200, 20)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda part: CachedOracle(Counting(), store)(part, POLICY), parts))
    oracle = Counting()
    CachedOracle(oracle, store)(EXCHANGES, POLICY)
    assert not oracle.asked
