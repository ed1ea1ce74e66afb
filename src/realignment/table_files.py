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
"""A writer holds so many bytes of rows, however long the texts are, before it writes them as one group."""

PART_ROWS = 2000
"""Rows of a part, where the caller names no number."""


class TableFileError(RealignmentError):
    """A table could not be written."""


class WorkFolder:
    """A folder for unfinished tables, removed when nothing refers to it any more or when the process ends.

    A process that is killed leaves its folder behind without the lock; the next one removes it.
    """

    def __init__(self, parent: Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(parent)
        self.path = parent / uuid4().hex
        lock = FileLock(_lock_path(self.path))
        lock.acquire()  # before the folder is there: a folder without its lock is an abandoned one
        self.path.mkdir()
        self._finalizer = weakref.finalize(self, _remove, self.path, lock)


def _lock_path(folder: Path) -> Path:
    return folder.with_suffix(".lock")


def _remove(path: Path, lock: BaseFileLock) -> None:
    shutil.rmtree(path, ignore_errors=True)
    lock.release()
    _lock_path(path).unlink(missing_ok=True)


def _remove_abandoned(parent: Path) -> None:
    folders = [path for path in parent.iterdir() if path.is_dir()]
    for folder in folders:
        lock = FileLock(_lock_path(folder))
        with contextlib.suppress(Timeout):  # a process that is alive holds the lock of its folder
            lock.acquire(blocking=False)
            logger.info("Removing %s, which a run that was killed has left", folder)
            _remove(folder, lock)


@dataclass(frozen=True)
class TableFile:
    """A finished table on disk, which a node returns in place of a table; a dataset moves its file.

    Attributes:
        path: A Parquet file.
        rows: Their number.
        digest: `records.digest_table` of the table.
        folder: Where the file lies until a dataset has moved it.
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
        """Yield the table, at most so many rows at a time."""
        return read_parts(self.path, rows)


Table = pd.DataFrame | TableFile
"""A table in memory or on disk."""


def read_parts(path: Path, rows: int) -> Iterator[pd.DataFrame]:
    """Yield the rows of a Parquet file, at most so many at a time."""
    # Buffered: otherwise every group of rows is read whole, and groups of a million rows are common.
    with pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=rows):
            yield batch.to_pandas()


def compute_digest(table: Table) -> str:
    """Return the `records.digest_table` of a table in memory or on disk."""
    return table.digest if isinstance(table, TableFile) else digest_table(table)


class TableWriter:
    """Appends to a Parquet file, which `finish` closes and digests.

    The first part decides the columns and their types; a column without any value there is a column of text.

    Attributes:
        folder: Where the file lies.
        path: The file.
        rows: Number of rows so far.
    """

    def __init__(self, folder: WorkFolder, name: str) -> None:
        self.folder = folder
        self.path = folder.path / f"{name}.parquet"
        self.rows = 0
        self._schema: pa.Schema | None = None
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):  # an unfinished file is not used
                self._writer.close()

    def append(self, part: pd.DataFrame) -> None:
        """Add rows.

        Args:
            part: May be empty.

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
        """Close the file and read it back for its digest.

        Returns:
            The finished table.

        Raises:
            TableFileError: The disk is full, or cannot be written.
        """
        self._flush()
        writer = self._writer
        assert writer is not None
        self._writer = None  # closed below: `__exit__` must not close it again
        with _explained_errors(self.path):
            writer.close()
        digest = digest_parts(read_parts(self.path, PART_ROWS), self.rows)
        return TableFile(self.path, self.rows, digest, self.folder)

    def _flush(self) -> None:
        with _explained_errors(self.path):
            if self._writer is None:
                # Statistics would hold texts of every group until the end; nothing reads them.
                self._writer = pq.ParquetWriter(self.path, self._schema, write_statistics=False)
            if self._waiting:
                self._writer.write_table(pa.concat_tables(self._waiting).combine_chunks())
        self._waiting = []


@contextlib.contextmanager
def _explained_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        free = shutil.disk_usage(path.parent).free / 2**30
        raise TableFileError(
            f"{path} could not be written: {error}. {free:.1f} GiB are free there. Nothing was saved in the "
            "catalog. Make room, or set another `work_folder` (and `data_root`), and run again: expensive "
            "verdicts are in the verdict store."
        ) from error


def _schema_of(table: pd.DataFrame) -> pa.Schema:
    """The Arrow schema of a first part, with long text for every column of text or without any value."""
    schema = pa.Schema.from_pandas(table, preserve_index=False)
    fields = []
    for field in schema:
        # `string` counts bytes with 32 bits, which is too few for a large group of texts.
        fields.append(field.with_type(pa.large_string()) if _is_text(field.type) else field)
    # pandas reads the types of its columns from a description of its own, which has to say the same.
    description: dict[str, Any] = json.loads(schema.metadata[b"pandas"])
    for column in description["columns"]:
        if column["pandas_type"] == "empty":
            column["pandas_type"] = "unicode"
    return pa.schema(fields, schema.metadata | {b"pandas": json.dumps(description).encode()})


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_null(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))
