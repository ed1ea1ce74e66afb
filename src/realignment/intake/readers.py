"""Readers of the tables that people bring (JSON Lines, JSON, CSV, Parquet, the Hub), row by row."""

import csv
import difflib
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from realignment.intake.unicode import require_unicode
from realignment.records import DataError

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
"""By these the format is told; the text formats may also be gzipped (``.jsonl.gz``)."""

_HUB_OPTIONS = {"split", "config", "revision"}


def read_table(source: str) -> pd.DataFrame:
    """Raw rows of a file or a Hub dataset, every cell as the source has it (text, number, flag, list, null).

    Args:
        source: A path that ends in one of `SUFFIXES`, or ``hub://org/name?split=train&config=…&revision=…``
            (the name may also be a local folder, ``hub:///folder``).

    Returns:
        Columns of dtype object; the index `row` is the line of the source where it has lines (JSON Lines;
        CSV: the line on which the row begins), else the position, counted from one. `attrs` has the source.

    Raises:
        DataError: Names file, row and what to do.
    """
    if source.startswith("hub://"):
        return _read_hub(source)
    path = Path(source)
    require_file(path)
    kind = path.name.removesuffix(".gz")
    if kind.endswith(".parquet"):
        table = _read_parquet(path)
    elif kind.endswith(".jsonl"):
        table = _read_jsonl(_read_text(path), path)
    elif kind.endswith(".json"):
        table = _read_json(_read_text(path), path)
    elif kind.endswith(".csv"):
        table = _read_csv(_read_text(path), path)
    else:
        raise DataError(
            f"{path}: unknown format {path.suffix!r}. Expected a name that ends in {', '.join(SUFFIXES)}."
        )
    if table.empty:
        raise DataError(f"{path} holds no rows. Expected at least one; is it the right file?")
    table.attrs["source"] = source  # so that whoever finds a wrong cell can say in which file it is
    return table


def require_file(path: Path) -> None:
    """An error that helps where there is no such file, or nothing in it."""
    if path.is_dir():
        raise DataError(
            f"{path} is a folder, expected a file; a folder of Parquet files is read as hub://{path}."
        )
    if not path.is_file():
        beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else " Check the path."
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
        byte = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "latin1"
        raise DataError(
            f"{path} is not UTF-8: line {line}, byte {byte} of the line is 0x{data[error.start]:02x}. "
            f"Convert it, for example with `iconv -f {encoding} -t utf-8`."
        ) from error
    if not text.strip():
        raise DataError(f"{path} is empty: only white space. Expected a table with at least one row.")
    return text


def _read_jsonl(text: str, path: Path) -> pd.DataFrame:
    rows, numbers = [], []
    for number, line in enumerate(
        text.split("\n"), start=1
    ):  # not splitlines(): JSON strings may hold U+2028
        if line and not line.isspace():
            rows.append(parse_object(line, path, number))
            numbers.append(number)
    return rows_to_frame(rows, numbers)


def parse_object(line: str, path: Path, number: int) -> dict[str, Any]:
    """The JSON object of one line; an error names the line."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}, line {number}: broken JSON ({error}) in {line[:80]!r}. Mend or remove the line."
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
            else "Mend it."
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
    begins = 1
    try:
        header = next(reader)
        require_unique(header, path)
        begins = reader.line_num + 1
        for fields in reader:
            if fields and len(fields) != len(header):
                raise DataError(
                    f"{path}, line {begins}: expected {len(header)} fields ({', '.join(header)}), "
                    f"found {len(fields)}. "
                    'Texts with commas or line breaks need double quotes around them ("" inside for a quote).'
                )
            if fields:
                rows.append([field or None for field in fields])
                numbers.append(begins)
            begins = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}, line {begins}: broken CSV ({error}). Check the quotes of that row."
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


def require_unique(names: list[str], path: Path) -> None:
    """An error where two columns have one name: which of them is meant is not known."""
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{path}: column names must be unique, repeated: {', '.join(map(repr, repeated))}.")


def _find_undecodable(column: Any) -> int:
    for row, cell in enumerate(column, start=1):
        try:
            cell.as_py()
        except UnicodeDecodeError:
            return row
    return 0


def _read_hub(source: str) -> pd.DataFrame:
    parts = urlsplit(source)
    options = dict(parse_qsl(parts.query))
    if unknown := sorted(options.keys() - _HUB_OPTIONS):
        raise DataError(
            f"{source}: unknown option {', '.join(unknown)}. Known: {', '.join(sorted(_HUB_OPTIONS))}."
        )
    import datasets  # takes seconds; only this source needs it

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


def rows_to_frame(rows: list[dict[str, Any]], numbers: Iterable[int]) -> pd.DataFrame:
    """Rows as a table of objects, under their numbers; a key that a row lacks is null."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    require_unicode(names)
    table = columns_to_frame({name: [row.get(name) for row in rows] for name in names}, len(rows))
    return table.set_axis(pd.Index(np.fromiter(numbers, dtype=np.int64), name="row"), axis=0)


def columns_to_frame(columns: dict[str, list[Any]], length: int, start: int = 1) -> pd.DataFrame:
    """Columns of cells as a table of objects whose rows are numbered from `start`."""
    # As objects: pandas must neither turn flags with gaps into floats nor choke on a lone surrogate.
    index = pd.RangeIndex(start, start + length, name="row")
    return pd.DataFrame(
        {name: pd.Series(cells, index=index, dtype=object) for name, cells in columns.items()}, index=index
    )
