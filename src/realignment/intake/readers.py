"""Readers of tables of raw rows: JSON Lines, JSON, CSV, Parquet and the Hub."""

import csv
import difflib
import gzip
import io
import json
import sys
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from realignment.intake.frames import columns_to_frame, require_unique, rows_to_frame
from realignment.records import DataError

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
"""File name endings, which decide the format; the text formats may also be gzipped (``.jsonl.gz``)."""

_HUB_OPTIONS = {"split", "config", "revision"}


def read_table(source: str) -> pd.DataFrame:
    """Read the raw rows of a file or a Hub dataset, every cell as the source has it.

    A cell is a text, number, flag, list or null; no text is turned into a number or a date.

    Args:
        source: A path that ends in one of `SUFFIXES`, or ``hub://org/name?split=train&config=…&revision=…``
            (the name may also be a local folder, ``hub:///folder``).

    Returns:
        Columns of dtype object; the index `row` is the line of the source where it has lines (JSON Lines;
        CSV: the line on which the row begins), else the position, counted from one. `attrs` has the source.

    Raises:
        DataError: The source cannot be read; the message names file, row and what to do.
    """
    if source.startswith("hub://"):
        return _read_hub(source)
    path = Path(source)
    require_file(path)
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        table = _read_parquet(path)
    elif name.endswith(".jsonl"):
        table = _read_jsonl(_read_text(path), path)
    elif name.endswith(".json"):
        table = _read_json(_read_text(path), path)
    elif name.endswith(".csv"):
        table = _read_csv(_read_text(path), path)
    else:
        raise DataError(
            f"{path}: unknown format {path.suffix!r}. Expected a name that ends in {', '.join(SUFFIXES)}."
        )
    if table.empty:
        raise DataError(f"{path} holds no rows. Expected at least one; is it the right file?")
    table.attrs["source"] = source  # so that a later error about a cell can name the file
    return table


def require_file(path: Path) -> None:
    """Make sure that there is such a file, and something in it.

    Args:
        path: Where the file should be.

    Raises:
        DataError: There is none, or it is a folder or empty; the message names files of a similar name.
    """
    if path.is_dir():
        raise DataError(
            f"{path} is a folder, expected a file; a folder of Parquet files is read as hub://{path}."
        )
    if not path.is_file():
        siblings = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        similar = difflib.get_close_matches(path.name, siblings, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(similar)}?" if similar else " Check the path."
        raise DataError(f"No file {path}.{hint}")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes). Expected a table with at least one row.")


def _read_text(path: Path) -> str:
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is no complete gzip file: {error}. Copy it again.") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        line_start = data.rfind(b"\n", 0, error.start) + 1
        byte = error.start - line_start + 1
        encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "latin1"
        raise DataError(
            f"{path} is not UTF-8: line {line}, byte {byte} of the line is 0x{data[error.start]:02x}. "
            f"Convert it, for example with `iconv -f {encoding} -t utf-8`."
        ) from error
    if not text.strip():
        raise DataError(f"{path} is empty: only white space. Expected a table with at least one row.")
    return text


def _read_jsonl(text: str, path: Path) -> pd.DataFrame:
    rows = []
    numbers = []
    # Not `splitlines()`, which also splits at U+2028, and JSON strings may contain that.
    for number, line in enumerate(text.split("\n"), start=1):
        if line and not line.isspace():
            rows.append(parse_object(line, path, number))
            numbers.append(number)
    return rows_to_frame(rows, numbers)


def parse_object(line: str, path: Path, number: int) -> dict[str, Any]:
    """Parse the JSON object of one line.

    Args:
        line: A line of a JSON Lines file.
        path: The file, for the message of an error.
        number: The line's number, for the message of an error.

    Returns:
        The object as a dictionary.

    Raises:
        DataError: The line is not JSON, or no object.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}, line {number}: broken JSON ({error}) in {line[:80]!r}. Correct or remove the line."
        ) from error
    if not isinstance(row, dict):
        raise DataError(
            f'{path}, line {number}: expected one JSON object per line, like {{"prompt": …}}, found '
            f"{type(row).__name__}. A JSON list over many lines belongs into a file that ends in .json."
        )
    return row


def _read_json(text: str, path: Path) -> pd.DataFrame:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        hint = (
            "One object per line belongs into a file that ends in .jsonl."
            if "Extra data" in str(error)
            else "Correct it."
        )
        raise DataError(f"{path}: broken JSON ({error}). {hint}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected a JSON list of objects, found {type(rows).__name__}.")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{path}, row {number}: expected a JSON object, found {type(row).__name__}.")
    return rows_to_frame(rows, range(1, len(rows) + 1))


def _read_csv(text: str, path: Path) -> pd.DataFrame:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default refuses texts beyond 128 KiB
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[list[str | None]] = []
    numbers: list[int] = []
    first_line = 1  # of the current row, which may have line breaks inside quotes
    try:
        header = next(reader)
        require_unique(header, path)
        first_line = reader.line_num + 1
        for fields in reader:
            if fields and len(fields) != len(header):
                raise DataError(
                    f"{path}, line {first_line}: expected {len(header)} fields ({', '.join(header)}), "
                    f"found {len(fields)}. "
                    'Texts with commas or line breaks need double quotes around them ("" inside for a quote).'
                )
            if fields:  # a blank line has none
                rows.append([field or None for field in fields])
                numbers.append(first_line)
            first_line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}, line {first_line}: broken CSV ({error}). Check the quotes of that row."
        ) from error
    return pd.DataFrame(
        rows, columns=header, index=pd.Index(numbers, name="row", dtype="int64"), dtype=object
    )


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is no readable Parquet file: {error}") from error
    require_unique(table.column_names, path)
    columns: dict[str, list[Any]] = {}
    for name in table.column_names:
        try:
            columns[name] = table.column(name).to_pylist()
        except UnicodeDecodeError as error:
            row = _find_undecodable(table.column(name))
            raise DataError(f"{path}, row {row}, field {name}: the text is not UTF-8 ({error}).") from error
    return columns_to_frame(columns, table.num_rows)


def _find_undecodable(column: Any) -> int:
    """Return the number of the first row, counted from one, whose text is not UTF-8; 0 if there is none."""
    for row, cell in enumerate(column, start=1):
        try:
            cell.as_py()
        except UnicodeDecodeError:
            return row
    return 0


def _read_hub(source: str) -> pd.DataFrame:
    parts = urlsplit(source)
    options = dict(parse_qsl(parts.query))
    unknown = sorted(options.keys() - _HUB_OPTIONS)
    if unknown:
        raise DataError(
            f"{source}: unknown option {', '.join(unknown)}. Known: {', '.join(sorted(_HUB_OPTIONS))}."
        )
    import datasets  # here, for importing it takes seconds and only this source needs it

    name = parts.netloc + parts.path
    try:
        rows = datasets.load_dataset(
            name, options.get("config"), split=options.get("split", "train"), revision=options.get("revision")
        )
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"The Hub dataset {name} could not be loaded: {type(error).__name__}: {str(error).strip()[:400]} "
            "Check name, split and config; without network, fetch it elsewhere and give its files or folder."
        ) from error
    if not len(rows):
        raise DataError(f"{source} holds no rows. Expected at least one; is it the right split?")
    return columns_to_frame(rows.to_dict(), len(rows))
