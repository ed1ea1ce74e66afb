"""The verdict store: a run that was killed continues where it was, and no exchange is judged twice."""

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
from realignment.oracles.protocol import CostlyOracle, Judgments, judge_in_order
from realignment.policy import Policy
from realignment.records import Exchange, Judgment, OracleError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS verdicts (
    key BLOB PRIMARY KEY, complies INTEGER, confidence REAL NOT NULL, rules_broken TEXT NOT NULL,
    reason TEXT NOT NULL, oracle TEXT NOT NULL
) WITHOUT ROWID
"""
_BUSY_S = 60.0
"""Seconds to wait for another process that holds the file."""
_MAX_VARIABLES = 500
"""Keys of one query; SQLite allows 999 variables or more."""
BATCH_SIZE = 64
"""Verdicts after which a batch is written: a kill loses no more than these."""
BATCH_S = 2.0
"""Seconds after which a smaller batch is written."""


class VerdictStoreError(OracleError):
    """The verdict store cannot be read or written."""


class _DamagedError(sqlite3.DatabaseError):
    """A row is there, but is not a verdict."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


@dataclass(frozen=True)
class VerdictStore:
    """A SQLite file of judgments by `verdict_key`; several processes may read and write it at a time."""

    path: Path

    def look_up(self, keys: Sequence[bytes]) -> dict[bytes, Judgment]:
        """Return the stored judgments of these keys, by key."""
        judgments: dict[bytes, Judgment] = {}
        with self._connect() as connection:
            for start in range(0, len(keys), _MAX_VARIABLES):
                part = keys[start : start + _MAX_VARIABLES]
                placeholders = ",".join("?" * len(part))
                rows = connection.execute(f"SELECT * FROM verdicts WHERE key IN ({placeholders})", part)
                judgments |= {row[0]: _to_judgment(row) for row in rows}
        return judgments

    def write(self, judgments: dict[bytes, Judgment]) -> None:
        """Store these judgments by key, in one transaction: all, or none where the disk is full."""
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
        """Open a connection that can write, or fail before the oracle judges what could not be stored."""
        # SQLite waits for other writers by itself, but not for one that opens the file at the same moment.
        retrying = Retrying(
            retry=retry_if_exception(lambda error: "locked" in str(error)),
            stop=stop_after_delay(_BUSY_S),
            wait=wait_random(0.01, 0.1),
            reraise=True,
        )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(retrying(self._open)) as connection:
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise VerdictStoreError(
                f"The verdict store {self.path} cannot be used: {error}. {_suggest_remedy(error)}"
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


def _suggest_remedy(error: Exception) -> str:
    """Return advice by SQLite's error code; only an intact store keeps what it has."""
    again = "and run again: only what is missing is requested."
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
            return f"Another process has locked it for {_BUSY_S:.0f} s. Wait for that one, {again}"
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_ERROR:
            return (
                f"It is damaged, or another program's file. Move it away, or {other}, and run again: what "
                "cannot be read of it is lost, and is judged again."
            )
    return (
        "A verdict cannot be stored, so those written together with it are not stored either. This is a "
        "fault of the oracle that gave it, and not of the disk: report it."
    )


def _to_judgment(row: tuple[Any, ...]) -> Judgment:
    """Return the judgment of a row of the table, whose values SQLite does not check."""
    try:
        _, complies, confidence, rules_broken, reason, oracle = row
        verdict = None if complies is None else bool(complies)
        return Judgment(verdict, float(confidence), tuple(json.loads(rules_broken)), reason, oracle)
    except (ValueError, TypeError) as error:
        raise _DamagedError(f"a row is no verdict ({error})") from error


def verdict_key(identity: str, policy: Policy, exchange: Exchange) -> bytes:
    """Return the sha256 of all that a verdict depends on: another oracle, policy or text has another key.

    Args:
        identity: Identity of the oracle: model, wording and settings.
        policy: The policy to judge by.
        exchange: What is judged.

    Returns:
        32 bytes.
    """
    parts = [identity, policy.digest, exchange.prompt, exchange.response, exchange.domain]
    return hashlib.sha256(json.dumps(parts).encode()).digest()


@dataclass(frozen=True)
class CachedOracle:
    """Answers from the store; the oracle judges only what is missing, and the same exchange only once.

    Verdicts are written as they come. Faults are not stored, so the next run judges those exchanges again.

    Attributes:
        oracle: Judges what the store does not have.
        store: Keeps the verdicts.
        refresh: Judge everything again, and replace what the store has.
    """

    oracle: CostlyOracle
    store: VerdictStore
    refresh: bool = False

    @property
    def name(self) -> str:
        """Name of the oracle, in reports as without the store."""
        return self.oracle.name

    @property
    def identity(self) -> str:
        """Identity of the oracle, which verdicts are stored under."""
        return self.oracle.identity

    @property
    def usage(self) -> Usage:
        """What the oracle has cost so far, with the number of answers from the store."""
        return self.oracle.usage

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """Return one judgment per exchange, in order."""
        return judge_in_order(self, exchanges, policy)

    def stream(self, exchanges: Sequence[Exchange], policy: Policy) -> Judgments:
        """Yield position and judgment of every exchange, those in the store first."""
        # Equal exchanges have one key, and so are judged once.
        positions: dict[bytes, list[int]] = {}
        identity = self.identity
        for position, exchange in enumerate(exchanges):
            positions.setdefault(verdict_key(identity, policy, exchange), []).append(position)
        stored = self.store.look_up([] if self.refresh else list(positions))
        for key, judgment in stored.items():
            self.usage.stored += len(positions[key])
            for position in positions[key]:
                yield position, judgment
        missing = {key: exchanges[places[0]] for key, places in positions.items() if key not in stored}
        for key, judgment in self._judge(missing, policy):
            for position in positions[key]:
                yield position, judgment

    def _judge(
        self, exchanges: dict[bytes, Exchange], policy: Policy
    ) -> Generator[tuple[bytes, Judgment], None, None]:
        """Yield the oracle's judgments by key, and store them batch by batch."""
        keys = list(exchanges)
        batch: dict[bytes, Judgment] = {}
        written_at = time.monotonic()
        judgments = self.oracle.stream(list(exchanges.values()), policy)
        bar = tqdm(total=len(keys), desc=self.name, unit="verdict", leave=False, disable=None)
        try:
            with closing(judgments), bar:
                for position, judgment in judgments:
                    key = keys[position]
                    if not judgment.fault:
                        batch[key] = judgment
                    if len(batch) >= BATCH_SIZE or time.monotonic() - written_at > BATCH_S:
                        self.store.write(batch)
                        batch = {}
                        written_at = time.monotonic()
                    bar.update()
                    yield key, judgment
        finally:  # also where the oracle fails or the run is interrupted: verdicts cost time and money
            self.store.write(batch)
