"""Tables in files that are larger than memory, read batch by batch."""

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from realignment.intake.frames import columns_to_frame, require_unique, rows_to_frame
from realignment.intake.readers import parse_object, require_file
from realignment.intake.unicode import require_unicode
from realignment.records import DataError

SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz")
_EMPTY = "{} holds no rows. Expected at least one; is it the right file?"


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of a table.

    Attributes:
        path: The file.
        rows: How many rows it has.
        lines: How many row numbers it takes up: in JSON Lines the lines down to its last row, else the rows.
    """

    path: Path
    rows: int
    lines: int


@dataclass(frozen=True, slots=True)
class Shards:
    """One table in one or more files, scanned once, so that its size is known and every row can be read.

    Attributes:
        shards: The files, in the order of their names.
        columns: The columns of all files, in the order in which they appear.
    """

    shards: tuple[Shard, ...]
    columns: tuple[str, ...]

    def __len__(self) -> int:
        return sum(shard.rows for shard in self.shards)

    def read(self, size: int, keep: np.ndarray | None = None) -> Iterator[pd.DataFrame]:
        """Read the rows that `read_table` would return, never holding more than one batch of them.

        Args:
            size: Rows of a batch, at most.
            keep: Which rows of the whole table to read, shape (rows,); None: all.

        Yields:
            Tables with every column, as `read_table` has them. In several files the row numbers continue
            from one file to the next.
        """
        position = 0  # of the shard's first row among all rows
        offset = 0  # added to the row numbers that the shard's reader gives
        for shard in self.shards:
            keep_in_shard = None if keep is None else keep[position : position + shard.rows]
            for batch in _choose_reader(shard.path)(shard.path, size, keep_in_shard):
                batch.index += offset
                yield self._add_missing_columns(batch)
            position += shard.rows
            offset += shard.lines

    def _add_missing_columns(self, batch: pd.DataFrame) -> pd.DataFrame:
        for name in set(self.columns) - set(batch.columns):
            batch[name] = pd.Series([None] * len(batch), index=batch.index, dtype=object)
        return batch[list(self.columns)]

    def list_files(self) -> list[dict[str, Any]]:
        """Return per file its name, the number of its rows, and the number of its first row."""
        starts = np.cumsum([1, *(shard.lines for shard in self.shards)]).tolist()
        return [
            {"file": shard.path.name, "rows": shard.rows, "first_row": start}
            for shard, start in zip(self.shards, starts, strict=False)
        ]


def scan_shards(source: str) -> Shards:
    """Find the files of a table, and scan them once to count rows and collect columns.

    Args:
        source: A Parquet or JSON Lines file (``.jsonl`` or ``.jsonl.gz``), a folder of such files, or a
            pattern (``my/pairs/train-*.parquet``).

    Returns:
        The table, ready to be read batch by batch.

    Raises:
        DataError: A file cannot be read; the message names file, line and what to do.
    """
    columns: dict[str, None] = {}  # an ordered set
    shards = []
    for path in _find_files(source):
        scan = _scan_parquet if path.name.endswith(".parquet") else _scan_jsonl
        shard, shard_columns = scan(path)
        shards.append(shard)
        columns |= dict.fromkeys(shard_columns)
    if not sum(shard.rows for shard in shards):
        raise DataError(_EMPTY.format(source))
    require_unicode(columns)
    return Shards(tuple(shards), tuple(columns))


def _scan_jsonl(path: Path) -> tuple[Shard, list[str]]:
    columns: dict[str, None] = {}
    rows = 0
    number = 0
    for number, line in _read_lines(path):
        columns |= dict.fromkeys(parse_object(line, path, number))
        rows += 1
    return Shard(path, rows, lines=number), list(columns)


def _scan_parquet(path: Path) -> tuple[Shard, list[str]]:
    require_file(path)
    try:
        with pq.ParquetFile(path) as file:
            columns = list(file.schema_arrow.names)
            rows = int(file.metadata.num_rows)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is no readable Parquet file: {error}") from error
    require_unique(columns, path)
    return Shard(path, rows, lines=rows), columns


def _find_files(source: str) -> list[Path]:
    if source.startswith("hub://"):
        raise DataError(
            f"{source} is not read part by part. Fetch its files (`hf download NAME --repo-type dataset "
            "--local-dir FOLDER`), and name the folder that holds the Parquet files of one split."
        )
    path = Path(source)
    if path.is_dir() or "*" in path.name:
        candidates = path.iterdir() if path.is_dir() else path.parent.glob(path.name)
        # Names that begin with a dot or an underscore are logs and markers of whatever wrote the folder.
        files = sorted(
            file for file in candidates if file.name.endswith(SUFFIXES) and file.name[0] not in "._"
        )
        if not files:
            raise DataError(f"{source} holds no file that ends in {', '.join(SUFFIXES)}.")
        return files
    require_file(path)
    if not path.name.endswith(SUFFIXES):
        raise DataError(
            f"{path}: only Parquet and JSON Lines are read part by part, found {path.suffix!r}. Convert it, "
            "for example with pandas."
        )
    return [path]


def _choose_reader(path: Path) -> Any:
    return _read_parquet if path.name.endswith(".parquet") else _read_jsonl


def _read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, with their numbers."""
    number = 0
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if not line.isspace():
                    yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(
                f"{path} is no complete UTF-8 text, at line {number}: {error}. Correct it or copy it again."
            ) from error


def _read_jsonl(path: Path, size: int, keep: np.ndarray | None) -> Iterator[pd.DataFrame]:
    lines = (line for position, line in enumerate(_read_lines(path)) if keep is None or keep[position])
    while batch := list(islice(lines, size)):
        rows = [parse_object(text, path, number) for number, text in batch]
        yield rows_to_frame(rows, [number for number, _ in batch])


def _read_parquet(path: Path, size: int, keep: np.ndarray | None) -> Iterator[pd.DataFrame]:
    start = 0  # rows read so far
    try:
        # Buffered: else every row group is read whole, and groups of a million rows are common.
        with pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False) as file:
            for record_batch in file.iter_batches(batch_size=size):
                columns = {name: record_batch.column(name).to_pylist() for name in record_batch.schema.names}
                batch = columns_to_frame(columns, record_batch.num_rows, start + 1)
                if keep is not None:
                    batch = batch[keep[start : start + record_batch.num_rows]]
                start += record_batch.num_rows
                if len(batch):
                    yield batch
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no readable Parquet file from row {start + 1} on: {error}") from error
