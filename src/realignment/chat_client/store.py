"""SQLite files that keep what models have said: a run that was killed asks only for what is missing."""

import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from realignment.records import OracleError

T = TypeVar("T")
_BUSY_S = 60.0
"""Seconds to wait for another process that holds the file."""
_MAX_VARIABLES = 500
"""Keys of one query; SQLite allows 999 variables or more."""
BATCH_SIZE = 64
"""Values after which a batch is written: a kill loses no more than these."""
BATCH_S = 2.0
"""Seconds after which a smaller batch is written."""

_NOT_WRITABLE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)


class StoreError(OracleError):
    """A store cannot be read or written."""


class _DamagedError(sqlite3.DatabaseError):
    """A row is there, but its cells are not those of a value."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


@dataclass(frozen=True)
class SqliteStore(ABC, Generic[T]):
    """A SQLite file of values by key; several processes may read and write it at a time.

    Attributes:
        path: The file; it is made where there is none.
        value: What one value is called in messages, such as "verdict".
        setting: The parameter that names the file, for messages.
        table: Name of the table.
        columns: Declarations of the columns besides the key, in the order of a value's cells.
    """

    path: Path
    value: ClassVar[str]
    setting: ClassVar[str]
    table: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]

    @abstractmethod
    def to_cells(self, value: T) -> tuple[Any, ...]:
        """Return the cells of a value, one per column."""

    @abstractmethod
    def from_cells(self, cells: Sequence[Any]) -> T:
        """Return the value of a row's cells, whose types SQLite does not check.

        Raises:
            ValueError, TypeError: The cells are not those of a value.
        """

    def look_up(self, keys: Sequence[bytes]) -> dict[bytes, T]:
        """Return the stored values of these keys, by key."""
        values: dict[bytes, T] = {}
        with self._connect() as connection:
            for start in range(0, len(keys), _MAX_VARIABLES):
                part = keys[start : start + _MAX_VARIABLES]
                placeholders = ",".join("?" * len(part))
                rows = connection.execute(f"SELECT * FROM {self.table} WHERE key IN ({placeholders})", part)
                values |= {row[0]: self._read(row[1:]) for row in rows}
        return values

    def write(self, values: Mapping[bytes, T]) -> None:
        """Store these values by key, in one transaction: all, or none where the disk is full."""
        if not values:
            return
        rows = [(key, *self.to_cells(value)) for key, value in values.items()]
        placeholders = ", ".join("?" * (1 + len(self.columns)))
        with self._connect() as connection, connection:
            connection.executemany(f"INSERT OR REPLACE INTO {self.table} VALUES ({placeholders})", rows)

    def _read(self, cells: Sequence[Any]) -> T:
        try:
            return self.from_cells(cells)
        except (ValueError, TypeError) as error:
            raise _DamagedError(f"a row is no {self.value} ({error})") from error

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        """Open a connection that can write, or fail before anything is asked that could not be stored."""
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
            raise StoreError(
                f"The {self.value} store {self.path} cannot be used: {error}. {self._suggest_remedy(error)}"
            ) from error

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_BUSY_S)
        columns = ", ".join(self.columns)
        try:
            connection.execute("PRAGMA journal_mode = WAL")  # readers do not wait for the writer
            connection.execute("PRAGMA synchronous = NORMAL")  # safe against a kill, and fast
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {self.table} (key BLOB PRIMARY KEY, {columns}) WITHOUT ROWID"
            )
            connection.commit()
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _suggest_remedy(self, error: Exception) -> str:
        """Return advice by SQLite's error code; only an intact store keeps what it has."""
        again = "and run again: only what is missing is requested."
        other = f"set another `{self.setting}`"
        if isinstance(error, OSError):
            return f"Make its folder one that can be written, or {other}, {again}"
        # Without a code it is Python's own refusal to hand a value over.
        match getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CONSTRAINT) & 0xFF:
            case sqlite3.SQLITE_FULL:
                return f"What it has stays. Make room on the disk, or {other}, {again}"
            case sqlite3.SQLITE_IOERR:
                return f"See to the disk, and to limits and quotas on the size of files, or {other}, {again}"
            case (
                sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH
            ):
                return f"Make the file and its folder writable, or {other}, {again}"
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return f"Another process has locked it for {_BUSY_S:.0f} s. Wait for that one, {again}"
            case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_ERROR:
                return (
                    f"It is damaged, or another program's file. Move it away, or {other}, and run again: "
                    "what cannot be read of it is lost, and is asked for again."
                )
        return (
            f"A {self.value} cannot be stored, so those written together with it are not stored either. "
            "This is a fault of the program that gave it, and not of the disk: report it."
        )


class BatchWriter(Generic[T]):
    """Stores values in batches as they come, and the rest at the end of the context, whatever ends it.

    Args:
        write: Stores a batch, such as `SqliteStore.write`.
    """

    def __init__(self, write: Callable[[Mapping[bytes, T]], None]) -> None:
        self._write = write
        self._batch: dict[bytes, T] = {}
        self._written_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Store the rest, also where the context ends by an error: values cost time and money."""
        self._flush()

    def add(self, key: bytes, value: T) -> None:
        """Add a value; the batch is stored where it is large enough, or old enough."""
        self._batch[key] = value
        if len(self._batch) >= BATCH_SIZE or time.monotonic() - self._written_at > BATCH_S:
            self._flush()

    def _flush(self) -> None:
        batch = self._batch
        self._batch = {}
        self._write(batch)
        self._written_at = time.monotonic()
