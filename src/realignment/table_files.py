"""Tables that are larger than memory: written part by part, read part by part, never held whole."""

import contextlib
import json
import logging
import shutil
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import BaseFileLock, FileLock, Timeout

from realignment.records import RealignmentError, digest_parts, digest_table

logger = logging.getLogger(__name__)

_GROUP_BYTES = 16 * 2**20
"""A group of rows is written once it has so many bytes: what a writer holds, however long the texts are."""

PART_ROWS = 2000


class TableFileError(RealignmentError):
    """A table could not be written."""


class WorkFolder:
    """A folder for tables under way. It goes when nothing refers to it any more, or when the process ends.

    A process that is killed leaves its folder behind without the lock; the next one removes it.
    """

    def __init__(self, parent: Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(parent)
        self.path = parent / uuid4().hex
        lock = FileLock(_lock_of(self.path))
        lock.acquire()  # before the folder is there: a folder without its lock is an abandoned one
        self.path.mkdir()
        self._finalizer = weakref.finalize(self, _remove, self.path, lock)


def _lock_of(folder: Path) -> Path:
    return folder.with_suffix(".lock")


def _remove(path: Path, lock: BaseFileLock) -> None:
    shutil.rmtree(path, ignore_errors=True)
    lock.release()
    _lock_of(path).unlink(missing_ok=True)


def _remove_abandoned(parent: Path) -> None:
    for folder in (path for path in parent.iterdir() if path.is_dir()):
        lock = FileLock(_lock_of(folder))
        with contextlib.suppress(Timeout):
            lock.acquire(blocking=False)
            logger.info("Removing %s, which a run that was killed has left", folder)
            _remove(folder, lock)


@dataclass(frozen=True)
class TableFile:
    """A finished table on disk, which a node returns in place of a table; a dataset takes the file over.

    Attributes:
        path: A Parquet file.
        rows: Their number.
        digest: `records.digest_table` of the table.
        folder: Where the file lies until a dataset has taken it.
    """

    path: Path
    rows: int
    digest: str
    folder: WorkFolder

    def __len__(self) -> int:
        return self.rows

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(pq.read_schema(self.path).names)

    def parts(self, rows: int = PART_ROWS) -> Iterator[pd.DataFrame]:
        """The table, at most so many rows at a time."""
        return read_parts(self.path, rows)


Table = pd.DataFrame | TableFile
"""In memory or on disk."""


def read_parts(path: Path, rows: int) -> Iterator[pd.DataFrame]:
    """The rows of a Parquet file, at most so many at a time."""
    # Buffered: else every group of rows is read whole, and groups of a million rows are common.
    with pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=rows):
            yield batch.to_pandas()


def digest(table: Table) -> str:
    """`records.digest_table`, of a table in memory or on disk."""
    return table.digest if isinstance(table, TableFile) else digest_table(table)


class TableWriter:
    """Appends to a Parquet file, which `finish` closes and measures.

    The first part says the columns and their kinds; a column of objects without any value there is of text.
    """

    def __init__(self, folder: WorkFolder, name: str) -> None:
        self.folder, self.path, self.rows = folder, folder.path / f"{name}.parquet", 0
        self._schema: pa.Schema | None = None
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):  # what is there is thrown away
                self._writer.close()

    def append(self, part: pd.DataFrame) -> None:
        """Add rows, which may be none.

        Raises:
            TableFileError: The disk is full, or cannot be written.
        """
        if self._schema is None:
            self._schema = _schema_of(part)
        self._waiting.append(pa.Table.from_pandas(part, schema=self._schema, preserve_index=False))
        self.rows += len(part)
        if sum(table.nbytes for table in self._waiting) >= _GROUP_BYTES:
            self._flush()

    def finish(self) -> TableFile:
        """Close the file and read it back for its digest."""
        self._flush()
        assert self._writer is not None
        writer, self._writer = self._writer, None
        with _named(self.path):
            writer.close()
        return TableFile(
            self.path, self.rows, digest_parts(read_parts(self.path, PART_ROWS), self.rows), self.folder
        )

    def _flush(self) -> None:
        with _named(self.path):
            if self._writer is None:
                # Statistics would hold texts of every group until the end; nothing reads them.
                self._writer = pq.ParquetWriter(self.path, self._schema, write_statistics=False)
            if self._waiting:
                self._writer.write_table(pa.concat_tables(self._waiting).combine_chunks())
        self._waiting = []


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        free = shutil.disk_usage(path.parent).free / 2**30
        raise TableFileError(
            f"{path} could not be written: {error}. {free:.1f} GiB are free there. Nothing was saved in the "
            "catalog. Make room, or set another `work_folder` (and `data_root`), and run again: verdicts "
            "that cost are in the verdict store."
        ) from error


def _schema_of(table: pd.DataFrame) -> pa.Schema:
    schema = pa.Schema.from_pandas(table, preserve_index=False)
    texts = {"columns": [_as_text(column) for column in json.loads(schema.metadata[b"pandas"])["columns"]]}
    described: dict[str, Any] = json.loads(schema.metadata[b"pandas"]) | texts
    fields = [field.with_type(pa.large_string()) if _is_text(field.type) else field for field in schema]
    return pa.schema(fields, schema.metadata | {b"pandas": json.dumps(described).encode()})


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_null(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _as_text(column: dict[str, Any]) -> dict[str, Any]:
    return column | {"pandas_type": "unicode"} if column["pandas_type"] == "empty" else column
