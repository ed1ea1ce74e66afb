"""Verdicts that cost are kept: a run that was killed goes on where it was, and nothing is asked twice."""

import hashlib
import json
import sqlite3
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random
from tqdm import tqdm

from realignment.chat_client.usage import Usage
from realignment.oracles.protocol import CostlyOracle, Judgments, in_order
from realignment.policy import Policy
from realignment.records import Exchange, Judgment, OracleError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS verdicts (
    key BLOB PRIMARY KEY, complies INTEGER, confidence REAL NOT NULL, rules_broken TEXT NOT NULL,
    reason TEXT NOT NULL, oracle TEXT NOT NULL
) WITHOUT ROWID
"""
_BUSY_S = 60.0
_VARIABLES = 500
BATCH_SIZE, BATCH_S = 64, 2.0
"""A batch is written when it has so many verdicts, or is so many seconds old: so much a kill can lose."""


class VerdictStoreError(OracleError):
    """The verdict store cannot be read or written."""


class _DamagedError(sqlite3.DatabaseError):
    """A row is there, and is no verdict."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


@dataclass(frozen=True)
class VerdictStore:
    """A SQLite file of judgments by `verdict_key`; several processes may read and write it at a time."""

    path: Path

    def look_up(self, keys: Sequence[bytes]) -> dict[bytes, Judgment]:
        """The judgments that are there, by key."""
        found: dict[bytes, Judgment] = {}
        with self._connect() as connection:
            for start in range(0, len(keys), _VARIABLES):
                part = keys[start : start + _VARIABLES]
                marks = ",".join("?" * len(part))
                rows = connection.execute(f"SELECT * FROM verdicts WHERE key IN ({marks})", part)
                found |= {row[0]: _to_judgment(row) for row in rows}
        return found

    def write(self, judgments: dict[bytes, Judgment]) -> None:
        """Keep these; all of them, or none where the disk is full."""
        if not judgments:
            return
        rows = [
            (key, j.complies, j.confidence, json.dumps(j.rules_broken), j.reason, j.oracle)
            for key, j in judgments.items()
        ]
        with self._connect() as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?, ?)", rows)

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        """A connection that can write, or an error before anything is asked that could not be kept."""
        # SQLite waits for other writers by itself, but not for one that opens the file at the same moment.
        opening = Retrying(
            retry=retry_if_exception(lambda error: "locked" in str(error)),
            stop=stop_after_delay(_BUSY_S),
            wait=wait_random(0.01, 0.1),
            reraise=True,
        )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(opening(self._open)) as connection:
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise VerdictStoreError(
                f"The verdict store {self.path} cannot be used: {error}. {_what_to_do(error)}"
            ) from error

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_BUSY_S)
        try:
            connection.execute("PRAGMA journal_mode = WAL")  # readers do not wait for the writer
            connection.execute("PRAGMA synchronous = NORMAL")  # safe against a kill, and fast
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_SCHEMA)
            connection.commit()
        except sqlite3.Error:
            connection.close()
            raise
        return connection


def _what_to_do(error: Exception) -> str:
    """By what SQLite says is wrong: only a store that is whole keeps what it has."""
    again = "and run again: only what is missing is asked."
    other = "set another `judging.verdict_store`"
    if isinstance(error, OSError):
        return f"Make its folder one that can be written, or {other}, {again}"
    # Without a code it is Python's own refusal to hand a value over.
    match getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CONSTRAINT) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return f"What it has stays. Make room on the disk, or {other}, {again}"
        case sqlite3.SQLITE_IOERR:
            return f"See to the disk, and to limits and quotas on the size of files, or {other}, {again}"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return f"Make the file and its folder writable, or {other}, {again}"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return f"Another process has not let go of it for {_BUSY_S:.0f} s. Wait for that one, {again}"
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_ERROR:
            return (
                f"It is damaged, or another program's file. Move it away, or {other}, and run again: what "
                "cannot be read of it is lost, and is asked again."
            )
    return (
        "A verdict is not such as can be kept, so that those written together with it are not kept either. "
        "This is a fault of the oracle that gave it, and not of the disk: report it."
    )


def _to_judgment(row: tuple[Any, ...]) -> Judgment:
    try:
        _, complies, confidence, rules_broken, reason, oracle = row
        verdict = None if complies is None else bool(complies)
        return Judgment(verdict, float(confidence), tuple(json.loads(rules_broken)), reason, oracle)
    except (ValueError, TypeError) as error:
        raise _DamagedError(f"a row is no verdict ({error})") from error


def verdict_key(identity: str, policy: Policy, exchange: Exchange) -> bytes:
    """sha256 over all that a verdict depends on: another oracle, wording, policy or text, another key."""
    parts = [identity, policy.digest, exchange.prompt, exchange.response, exchange.domain]
    return hashlib.sha256(json.dumps(parts).encode()).digest()


@dataclass(frozen=True)
class CachedOracle:
    """Answers from the store, and asks the oracle only for what is missing, the same exchange only once.

    Verdicts are written as they come; one that is missing through a fault is not, and is asked for again.

    Attributes:
        oracle: Who is asked.
        store: Where verdicts are kept.
        refresh: Ask for everything again, and replace what the store has.
    """

    oracle: CostlyOracle
    store: VerdictStore
    refresh: bool = False

    @property
    def name(self) -> str:
        """That of the oracle."""
        return self.oracle.name

    @property
    def identity(self) -> str:
        """That of the oracle."""
        return self.oracle.identity

    @property
    def usage(self) -> Usage:
        """That of the oracle, with the number of answers from the store."""
        return self.oracle.usage

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """One judgment per exchange, in order."""
        return in_order(self, exchanges, policy)

    def stream(self, exchanges: Sequence[Exchange], policy: Policy) -> Judgments:
        """Those that the store has first."""
        identity, positions = self.identity, dict[bytes, list[int]]()
        for position, exchange in enumerate(exchanges):
            positions.setdefault(verdict_key(identity, policy, exchange), []).append(position)
        found = self.store.look_up([] if self.refresh else list(positions))
        for key, judgment in found.items():
            self.usage.stored += len(positions[key])
            yield from ((position, judgment) for position in positions[key])
        missing = [key for key in positions if key not in found]
        for key, judgment in self._ask([(key, exchanges[positions[key][0]]) for key in missing], policy):
            yield from ((position, judgment) for position in positions[key])

    def _ask(
        self, questions: list[tuple[bytes, Exchange]], policy: Policy
    ) -> Generator[tuple[bytes, Judgment], None, None]:
        batch: dict[bytes, Judgment] = {}
        since = time.monotonic()
        answers = self.oracle.stream([exchange for _, exchange in questions], policy)
        bar = tqdm(total=len(questions), desc=self.name, unit="verdict", leave=False, disable=None)
        try:
            with closing(answers), bar:
                for position, judgment in answers:
                    key = questions[position][0]
                    if not judgment.fault:
                        batch[key] = judgment
                    if len(batch) >= BATCH_SIZE or time.monotonic() - since > BATCH_S:
                        self.store.write(batch)
                        batch, since = {}, time.monotonic()
                    bar.update()
                    yield key, judgment
        finally:  # also where the oracle fails or the run is interrupted: what was paid for is kept
            self.store.write(batch)
