"""Raw rows of a file that is larger than memory, part by part."""

import gzip
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from realignment.intake.readers import columns_to_frame, parse_object, require_file, rows_to_frame
from realignment.records import DataError


def read_chunks(source: str, size: int) -> Iterator[pd.DataFrame]:
    """The rows that `read_table` would give, at most `size` at a time; no more are held at once.

    Args:
        source: A Parquet or JSON Lines file (``.jsonl`` or ``.jsonl.gz``).
        size: Rows of a chunk.

    Raises:
        DataError: Names file, line and what to do.
    """
    path = Path(source)
    require_file(path)
    kind = path.name.removesuffix(".gz")
    if kind.endswith(".parquet"):
        yield from _read_parquet(path, size)
    elif kind.endswith(".jsonl"):
        yield from _read_jsonl(path, size)
    else:
        raise DataError(
            f"{path}: only Parquet and JSON Lines are read part by part, found {path.suffix!r}. Convert it, "
            "for example with pandas."
        )


def _read_jsonl(path: Path, size: int) -> Iterator[pd.DataFrame]:
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
        filled = ((number, line) for number, line in enumerate(lines, start=1) if not line.isspace())
        try:
            while part := list(islice(filled, size)):
                texts = [line.decode("utf-8-sig" if number == 1 else "utf-8") for number, line in part]
                rows = [parse_object(text, path, n) for text, (n, _) in zip(texts, part, strict=True)]
                yield rows_to_frame(rows, [number for number, _ in part])
        except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
            raise DataError(
                f"{path} is no complete UTF-8 text: {error}. Mend it or copy it again."
            ) from error


def _read_parquet(path: Path, size: int) -> Iterator[pd.DataFrame]:
    start = 1
    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=size):
            columns = {name: batch.column(name).to_pylist() for name in batch.schema.names}
            yield columns_to_frame(columns, batch.num_rows, start)
            start += batch.num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no readable Parquet file from row {start} on: {error}") from error
