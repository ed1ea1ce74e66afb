"""Raw rows of files that are larger than memory, part by part."""

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

from realignment.intake.readers import (
    columns_to_frame,
    parse_object,
    require_file,
    require_unique,
    rows_to_frame,
)
from realignment.intake.unicode import require_unicode
from realignment.records import DataError

SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz")
_EMPTY = "{} holds no rows. Expected at least one; is it the right file?"


@dataclass(frozen=True, slots=True)
class Shard:
    """A file of a table, with its rows, and the numbers by which rows are told: lines, else positions."""

    path: Path
    rows: int
    lines: int


@dataclass(frozen=True, slots=True)
class Shards:
    """One table in one or more files, looked through once: what it holds is known, and that it can be read.

    Attributes:
        shards: The files, in the order of their names.
        columns: Of all of them, in the order in which they appear.
    """

    shards: tuple[Shard, ...]
    columns: tuple[str, ...]

    def __len__(self) -> int:
        return sum(shard.rows for shard in self.shards)

    def read(self, size: int, keep: np.ndarray | None = None) -> Iterator[pd.DataFrame]:
        """The rows that `read_table` would give, at most `size` at a time; no more are held at once.

        Args:
            size: Rows of a part.
            keep: Which rows of the whole table are wanted, shape (rows,); None: all.

        Yields:
            Tables with every column, as `read_table` has them. Of several files the rows are numbered on
            from one to the next.
        """
        position, line = 0, 0
        for shard in self.shards:
            wanted = None if keep is None else keep[position : position + shard.rows]
            for part in _reader(shard.path)(shard.path, size, wanted):
                part.index += line
                yield self._complete(part)
            position, line = position + shard.rows, line + shard.lines

    def _complete(self, part: pd.DataFrame) -> pd.DataFrame:
        for name in set(self.columns) - set(part.columns):
            part[name] = pd.Series([None] * len(part), index=part.index, dtype=object)
        return part[list(self.columns)]

    def list_files(self) -> list[dict[str, Any]]:
        """Every file: its name, its rows, and the number of its first row."""
        starts = np.cumsum([1, *(shard.lines for shard in self.shards)]).tolist()
        return [
            {"file": shard.path.name, "rows": shard.rows, "first_row": start}
            for shard, start in zip(self.shards, starts, strict=False)
        ]


def look_through(source: str) -> Shards:
    """Find the files of a table, and read through them once.

    Args:
        source: A Parquet or JSON Lines file (``.jsonl`` or ``.jsonl.gz``), a folder of such files, or a
            pattern (``my/pairs/train-*.parquet``).

    Raises:
        DataError: Names file, line and what to do.
    """
    files = _find_files(source)
    columns: dict[str, None] = {}
    shards = []
    for path in files:
        if path.name.endswith(".parquet"):
            schema, rows = _look_at_parquet(path)
            columns |= dict.fromkeys(schema)
            shards.append(Shard(path, rows, rows))
        else:
            rows, lines = 0, 0
            for lines, line in _lines(path):
                columns |= dict.fromkeys(parse_object(line, path, lines))
                rows += 1
            shards.append(Shard(path, rows, lines))
    if not sum(shard.rows for shard in shards):
        raise DataError(_EMPTY.format(source))
    require_unicode(columns)
    return Shards(tuple(shards), tuple(columns))


def _find_files(source: str) -> list[Path]:
    if source.startswith("hub://"):
        raise DataError(
            f"{source} is not read part by part. Fetch its files (`hf download NAME --repo-type dataset "
            "--local-dir FOLDER`), and name the folder that holds the Parquet files of one split."
        )
    path = Path(source)
    if path.is_dir() or "*" in path.name:
        found = path.iterdir() if path.is_dir() else path.parent.glob(path.name)
        files = sorted(file for file in found if file.name.endswith(SUFFIXES) and file.name[0] not in "._")
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


def _reader(path: Path) -> Any:
    return _read_parquet if path.name.endswith(".parquet") else _read_jsonl


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that hold anything, with their numbers."""
    number = 0
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if not line.isspace():
                    yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(
                f"{path} is no complete UTF-8 text, at line {number}: {error}. Mend it or copy it again."
            ) from error


def _read_jsonl(path: Path, size: int, keep: np.ndarray | None) -> Iterator[pd.DataFrame]:
    wanted = (line for position, line in enumerate(_lines(path)) if keep is None or keep[position])
    while part := list(islice(wanted, size)):
        rows = [parse_object(text, path, number) for number, text in part]
        yield rows_to_frame(rows, [number for number, _ in part])


def _look_at_parquet(path: Path) -> tuple[list[str], int]:
    require_file(path)
    try:
        with pq.ParquetFile(path) as file:
            names, rows = list(file.schema_arrow.names), int(file.metadata.num_rows)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is no readable Parquet file: {error}") from error
    require_unique(names, path)
    return names, rows


def _read_parquet(path: Path, size: int, keep: np.ndarray | None) -> Iterator[pd.DataFrame]:
    start = 0
    try:
        # Buffered: else every group of rows is read whole, and groups of a million rows are common.
        with pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=size):
                columns = {name: batch.column(name).to_pylist() for name in batch.schema.names}
                part = columns_to_frame(columns, batch.num_rows, start + 1)
                wanted = None if keep is None else keep[start : start + batch.num_rows]
                start += batch.num_rows
                part = part if wanted is None else part[wanted]
                if len(part):
                    yield part
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no readable Parquet file from row {start + 1} on: {error}") from error
