import gzip
import json
from pathlib import Path

import pandas as pd
import pytest

from realignment.intake.readers import read_table
from realignment.records import DataError

ROWS = [
    {"prompt": "Is 1 < 2?", "chosen": "Yes,\nit is.", "rejected": 'He said "no"', "chosen_complies": True},
    {"prompt": "Où ?", "chosen": "Là.\u2028Ici.", "rejected": "Nulle part", "chosen_complies": None},
]


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def to_jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.fixture
def offline(monkeypatch, tmp_path):
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")
    datasets.disable_progress_bars()


@pytest.mark.parametrize("suffix", ["jsonl", "json", "jsonl.gz", "parquet", "csv"])
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    path = tmp_path / f"pairs.{suffix}"
    match suffix:
        case "jsonl":
            path.write_text(to_jsonl(ROWS), encoding="utf-8")
        case "json":
            path.write_text(json.dumps(ROWS), encoding="utf-8")
        case "jsonl.gz":
            path.write_bytes(gzip.compress(to_jsonl(ROWS).encode()))
        case "parquet":
            pd.DataFrame(ROWS).to_parquet(path)
        case "csv":
            pd.DataFrame(ROWS).to_csv(path, index=False)
    table = read_table(str(path))
    expected = [dict(row) for row in ROWS]
    if suffix == "csv":  # CSV knows texts only; `intake` reads the flags
        expected[0]["chosen_complies"] = "True"
    assert table.to_dict("records") == expected
    assert table.index.name == "row"


def test_rows_carry_the_line_they_begin_on(tmp_path):
    jsonl = write(tmp_path / "a.jsonl", '\n{"prompt": "a"}\r\n\n{"prompt": "b"}\n')
    assert list(read_table(jsonl).index) == [2, 4]
    csv = write(tmp_path / "a.csv", 'prompt,chosen\n"two\nlines",x\nb,y\n')
    assert list(read_table(csv).index) == [2, 4]


def test_a_byte_order_mark_does_not_change_the_first_column(tmp_path):
    assert list(read_table(write(tmp_path / "a.csv", b"\xef\xbb\xbfprompt,chosen\na,b\n"))) == [
        "prompt",
        "chosen",
    ]


def test_an_empty_csv_cell_is_null(tmp_path):
    assert read_table(write(tmp_path / "a.csv", "prompt,domain\na,\n"))["domain"].tolist() == [None]


def test_parquet_keeps_messages_as_lists_of_dicts(tmp_path):
    messages = [{"role": "user", "content": "hi"}]
    pd.DataFrame({"prompt": [messages]}).to_parquet(tmp_path / "a.parquet")
    assert read_table(str(tmp_path / "a.parquet"))["prompt"].tolist() == [messages]


def test_a_lone_surrogate_in_json_reaches_the_intake(tmp_path):
    assert read_table(write(tmp_path / "a.jsonl", '{"prompt": "\\ud800"}'))["prompt"].tolist() == ["\ud800"]


@pytest.mark.parametrize(
    ("name", "content", "fragments"),
    [
        ("a.jsonl", b"", ["a.jsonl", "empty (0 bytes)"]),
        ("a.jsonl", b" \n\n", ["only white space"]),
        ("a.json", b"[]", ["no rows"]),
        ("a.csv", b"prompt,chosen\n", ["no rows"]),
        (
            "a.jsonl",
            b'{"prompt": "ok"}\n{"prompt": "caf\xe9"}\n',
            ["not UTF-8", "line 2, byte 16", "0xe9", "iconv"],
        ),
        ("a.csv", "prompt\nx\n".encode("utf-16"), ["not UTF-8", "line 1, byte 1", "-f utf-16"]),
        ("a.jsonl", b'{"prompt": "ok"}\n{"prompt": \n', ["line 2", "broken JSON"]),
        ("a.jsonl", b'{"prompt": "ok"}\n["x"]\n', ["line 2", "found list"]),
        ("a.jsonl", b"[" * 100_000, ["line 1", "broken JSON"]),
        ("a.json", b'{"prompt": 1}\n{"prompt": 2}', ["broken JSON", ".jsonl"]),
        ("a.json", b'{"prompt": 1}', ["expected a JSON list", "found dict"]),
        ("a.json", b'[{"prompt": 1}, 2]', ["row 2", "found int"]),
        ("a.csv", b"prompt,chosen,rejected\na,b,c\na,b\n", ["line 3", "expected 3 fields", "found 2"]),
        ("a.csv", b"prompt,chosen\na,b,c\n", ["line 2", "found 3", "double quotes"]),
        ("a.csv", b'prompt,chosen\n"a,b\n', ["line 2", "broken CSV"]),
        ("a.csv", b"prompt,prompt\na,b\n", ["unique", "'prompt'"]),
        ("a.parquet", b"PAR1 no", ["no readable Parquet"]),
        ("a.jsonl.gz", gzip.compress(b'{"prompt": "x"}')[:-6], ["gzip"]),
        ("a.xlsx", b"x", ["unknown format '.xlsx'", ".jsonl"]),
    ],
)
def test_a_file_that_cannot_be_read_says_where_and_what_to_do(tmp_path, name, content, fragments):
    with pytest.raises(DataError) as error:
        read_table(write(tmp_path / name, content))
    for part in [name, *fragments]:
        assert part in str(error.value)


def test_undecodable_text_in_parquet_names_row_and_field(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    broken = pa.array([b"fine", b"caf\xe9"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"chosen": broken}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="row 2, field chosen"):
        read_table(str(tmp_path / "a.parquet"))


def test_a_missing_file_names_its_neighbour(tmp_path):
    write(tmp_path / "pairs.jsonl", "{}")
    with pytest.raises(DataError, match=r"Did you mean pairs\.jsonl"):
        read_table(str(tmp_path / "pair.jsonl"))


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        read_table(str(tmp_path))


def test_a_hub_dataset_is_read_by_split(tmp_path, offline):
    folder = tmp_path / "dataset"
    folder.mkdir()
    (folder / "train.jsonl").write_text(to_jsonl(ROWS), encoding="utf-8")
    (folder / "test.jsonl").write_text(to_jsonl(ROWS[:1]), encoding="utf-8")
    train = read_table(f"hub://{folder}")
    assert train.to_dict("records") == ROWS
    assert list(train.index) == [1, 2]
    assert len(read_table(f"hub://{folder}?split=test")) == 1
    with pytest.raises(DataError, match="Check name, split and config"):
        read_table(f"hub://{folder}?split=validation")


def test_a_hub_dataset_out_of_reach_says_so(offline):
    with pytest.raises(DataError, match="without network"):
        read_table("hub://nobody/no-such-dataset-here?split=train")


def test_a_misspelt_hub_option_is_refused():
    with pytest.raises(DataError, match=r"unknown option splits.*Known: config, revision, split"):
        read_table("hub://org/name?splits=train")
