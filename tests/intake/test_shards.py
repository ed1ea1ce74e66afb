"""Files that are larger than memory are one table, read part by part."""

import gzip
import itertools
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realignment.intake.readers import read_table
from realignment.intake.seen_keys import SeenKeys, hash_keys
from realignment.intake.shards import scan_shards
from realignment.records import DataError

ROWS = [{"pair_id": str(n), "prompt": f"Prompt {n}? \u2028", "chosen": "a", "n": n} for n in range(30)]


def write(path, rows=ROWS):
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path, row_group_size=11)
    else:
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.jsonl.gz", "pairs.parquet"])
@pytest.mark.parametrize("size", [1, 7, 100])
def test_parts_are_the_parts_of_the_table(tmp_path, name, size):
    shards = scan_shards(str(write(tmp_path / name)))
    parts = list(shards.read(size))
    assert len(shards) == 30
    assert max(map(len, parts)) <= size
    pd.testing.assert_frame_equal(pd.concat(parts), read_table(str(tmp_path / name)), check_index_type=False)


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.parquet"])
def test_only_the_rows_that_are_wanted_are_read(tmp_path, name):
    keep = np.arange(30) % 4 == 1
    parts = list(scan_shards(str(write(tmp_path / name))).read(3, keep))
    assert [n for part in parts for n in part["n"]] == list(range(1, 30, 4))
    assert [row for part in parts for row in part.index] == list(range(2, 31, 4))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_the_files_of_a_folder_are_one_table_in_the_order_of_their_names(tmp_path, suffix):
    late = [row | {"domain": "late"} for row in ROWS[20:]]
    for name, rows in {"b": late, "a": ROWS[:20], "_not": ROWS}.items():
        write(tmp_path / f"{name}{suffix}", rows)
    (tmp_path / "README.md").write_text("Not a shard.")
    shards = scan_shards(str(tmp_path))
    table = pd.concat(shards.read(8))
    assert table.index.tolist() == list(range(1, 31))
    assert table["n"].tolist() == list(range(30))
    assert table["domain"].tolist() == [None] * 20 + ["late"] * 10
    assert shards.list_files() == [
        {"file": f"a{suffix}", "rows": 20, "first_row": 1},
        {"file": f"b{suffix}", "rows": 10, "first_row": 21},
    ]  # fmt: skip
    assert len(scan_shards(str(tmp_path / f"b*{suffix}"))) == 10


def test_blank_lines_are_counted_as_lines_and_are_no_rows(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('\n{"a": 1}\n\n{"a": 2}\n\n')
    shards = scan_shards(str(path))
    assert len(shards) == 2
    assert pd.concat(shards.read(1)).index.tolist() == [2, 4]


def test_a_broken_line_is_named_before_any_row_is_used(tmp_path):
    path = write(tmp_path / "pairs.jsonl")
    path.write_text(path.read_text() + '{"prompt": \n')
    with pytest.raises(DataError, match="line 31: broken JSON"):
        scan_shards(str(path))


def test_a_file_that_breaks_off_is_said_so(tmp_path):
    path = write(tmp_path / "pairs.jsonl.gz")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="is no complete UTF-8 text"):
        scan_shards(str(path))
    path = write(tmp_path / "pairs.parquet")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="is no readable Parquet file"):
        scan_shards(str(path))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("pairs.csv", "only Parquet and JSON Lines"), ("none.jsonl", "No file"),
        ("empty", "holds no file that"), ("blank.parquet", "holds no rows"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said(tmp_path, source, message):
    (tmp_path / "pairs.csv").write_text("a\n1\n")
    (tmp_path / "empty").mkdir()
    pd.DataFrame({"prompt": []}).to_parquet(tmp_path / "blank.parquet")
    with pytest.raises(DataError, match=message):
        scan_shards(str(tmp_path / source))


def test_two_columns_of_one_name_are_refused_however_the_table_is_read(tmp_path):
    twice = pa.table([pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"])
    pq.write_table(twice, tmp_path / "pairs.parquet")
    for read in (scan_shards, read_table):
        with pytest.raises(DataError, match=r"must be unique, repeated: 'prompt'"):
            read(str(tmp_path / "pairs.parquet"))


def test_a_column_whose_name_no_table_can_hold_is_refused_however_the_table_is_read(tmp_path):
    path = write(tmp_path / "pairs.jsonl")
    path.write_text(path.read_text() + '{"\\ud83d": 1}\n')
    for read in (scan_shards, read_table):
        with pytest.raises(DataError, match=r"The name '\\ud83d' of a column is not valid Unicode"):
            read(str(path))


def test_the_hub_is_refused_with_the_way_out():
    with pytest.raises(DataError, match=r"hub://org/name is not read part by part. Fetch its files"):
        scan_shards("hub://org/name")


@given(st.lists(st.lists(st.integers(0, 40), max_size=20), max_size=12))
def test_what_was_seen_is_known_and_nothing_else(parts):
    seen, before = SeenKeys(), set()
    for part in parts:
        hashes = hash_keys(part)
        assert seen.contains(hashes).tolist() == [key in before for key in part]
        seen.add(hashes)
        before |= set(part)
    assert len(seen) == sum(map(len, parts))
    lengths = [len(array) for array in seen.arrays]
    assert all(long >= 2 * short for long, short in itertools.pairwise(lengths))
