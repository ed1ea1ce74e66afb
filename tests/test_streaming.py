"""Part by part comes to the same as all at once, in memory that does not grow with the file."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from realignment import intake
from realignment.intake.chunks import read_chunks
from realignment.intake.readers import read_table
from realignment.judging import judge_pairs
from realignment.oracles.rules import RulesOracle
from realignment.policy import read_policy
from realignment.records import DataError, Disposition
from realignment.streaming import judge_and_triage
from realignment.triage import split, triage

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data/01_raw/sample/pairs.jsonl"
POLICY = read_policy(ROOT / "conf/base/policies/assistant-v2.yml")


def stream(source, target, **settings):
    settings = {"min_confidence": 0.5, "chunk_size": 50} | settings
    return judge_and_triage(str(source), target, POLICY, RulesOracle(), **settings)


def all_at_once(source):
    raw = read_table(str(source))
    result = intake.clean_pairs(raw, invalid="skip", max_prompt_chars=8000, long_prompts="drop")
    judgments = judge_pairs(result.pairs, POLICY, RulesOracle())
    return judgments, split(triage(result.pairs, judgments, min_confidence=0.5))


def sorted_rows(table):
    # Parquet has one null, pandas several.
    table = table.astype(object).where(table.notna(), None)
    return table.sort_values(list(table.columns[:2])).reset_index(drop=True)


@pytest.mark.parametrize("chunk_size", [7, 392, 10_000])
def test_the_files_hold_what_the_stages_give(tmp_path, chunk_size):
    report = stream(SAMPLE, tmp_path, chunk_size=chunk_size)
    judgments, splits = all_at_once(SAMPLE)
    assert report == {
        "rows": 392, "pairs": 392, "rejected": 0, "unscored": 0,
        "counts": {str(d): len(splits[d]) for d in Disposition},
    }  # fmt: skip
    assert min(report["counts"][d] for d in ("INVERT", "PUNISH", "RETAIN")) > 0
    for disposition, table in splits.items():
        found = pd.read_parquet(tmp_path / f"{disposition.lower()}_pairs.parquet")
        pd.testing.assert_frame_equal(sorted_rows(found), sorted_rows(table), check_dtype=False)
    found = pd.read_parquet(tmp_path / "judgments.parquet")
    pd.testing.assert_frame_equal(sorted_rows(found), sorted_rows(judgments), check_dtype=False)
    assert not list(tmp_path.glob("*.partial"))


@pytest.fixture
def rows():
    return [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()[:30]]


def write(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.jsonl.gz", "pairs.parquet"])
@pytest.mark.parametrize("size", [1, 7, 100])
def test_chunks_are_the_parts_of_the_table(tmp_path, rows, name, size):
    path = tmp_path / name
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        write(path, rows)
    chunks = list(read_chunks(str(path), size))
    assert max(map(len, chunks)) <= size
    whole = read_table(str(path))
    parts = pd.concat(chunks).reindex(columns=whole.columns)
    pd.testing.assert_frame_equal(parts.where(parts.notna(), None), whole)


def test_rejected_and_repeated_rows_are_listed_wherever_they_are(tmp_path, rows):
    bad = [rows[0] | {"chosen": " "}, rows[3], rows[4] | {"prompt": "Other?"}, rows[5] | {"pair_id": "new"}]
    report = stream(write(tmp_path / "pairs.jsonl", rows + bad), tmp_path / "out", chunk_size=4)
    rejected = pd.read_parquet(tmp_path / "out/rejected_rows.parquet")
    assert (report["rows"], report["pairs"], report["rejected"]) == (34, 30, 4)
    assert rejected["row"].tolist() == [31, 32, 33, 34]
    assert rejected["field"].tolist() == ["chosen", "prompt", "pair_id", "prompt"]
    assert rejected["pair_id"].tolist() == [rows[0]["pair_id"], rows[3]["pair_id"], rows[4]["pair_id"], "new"]


def test_a_broken_line_is_named_and_no_file_appears(tmp_path, rows):
    path = write(tmp_path / "pairs.jsonl", rows)
    path.write_text(path.read_text() + '{"prompt": \n')
    with pytest.raises(DataError, match="line 31: broken JSON"):
        stream(path, tmp_path / "out", chunk_size=10)
    assert not list((tmp_path / "out").glob("*.parquet"))


def test_a_file_that_breaks_off_is_said_so(tmp_path, rows):
    path = write(tmp_path / "pairs.jsonl.gz", rows)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="is no complete UTF-8 text"):
        stream(path, tmp_path / "out")


def test_other_formats_are_not_read_part_by_part(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("a\n1\n")
    with pytest.raises(DataError, match="only Parquet and JSON Lines"):
        stream(path, tmp_path / "out")


def test_a_file_without_a_usable_row_is_an_error(tmp_path, rows):
    path = write(tmp_path / "pairs.jsonl", [row | {"chosen": ""} for row in rows])
    with pytest.raises(DataError, match="None of the 30 rows"):
        stream(path, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.parquet"))


PEAK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_streaming import stream
stream(sys.argv[1], Path(sys.argv[2]), chunk_size=1000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory as Linux counts it")
def test_ten_times_the_pairs_need_no_more_memory(tmp_path, rows):
    peaks = []
    for copies in (100, 1000):
        many = (
            row | {"pair_id": f"{row['pair_id']}-{n}", "prompt": f"{row['prompt']} ({n})"}
            for n in range(copies)
            for row in rows
        )
        path = tmp_path / f"{copies}.jsonl"
        with path.open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in many)
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(path), str(tmp_path / str(copies)), str(ROOT / "tests")],
            env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks.append(float(done.stdout))
    assert peaks[1] - peaks[0] < 40, f"{peaks} MiB for 3,000 and 30,000 pairs"
