"""Digests of tables, and the two ways in which a run ends on purpose."""

import pandas as pd
import pytest

from realignment.datasets import ParquetDataset
from realignment.records import NothingToDo, RealignmentError, digest_table, judge_names

TABLE = pd.DataFrame(
    {
        "pair_id": ["a", "b", "c"],
        "correction": [None, "better", None],
        "messages": pd.Series([None, None, None], dtype=object),
        "verdict": pd.array([True, None, False], dtype="boolean"),
        "score": [0.1, 1 / 3, float("nan")],
        "n": [1, 2, 3],
    }
)


def test_a_table_keeps_its_digest_when_it_is_saved_and_loaded(tmp_path):
    dataset = ParquetDataset(filepath=str(tmp_path / "table.parquet"))
    dataset.save(TABLE)
    assert digest_table(dataset.load()) == digest_table(TABLE)


def test_the_index_does_not_count():
    assert digest_table(TABLE.set_axis([7, 8, 9])) == digest_table(TABLE)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.assign(score=[0.1, 0.3333, float("nan")]),
        lambda t: t.assign(verdict=pd.array([True, False, False], dtype="boolean")),
        lambda t: t.assign(correction=["", "better", None]),
        lambda t: t.iloc[::-1],
        lambda t: t.iloc[:2],
        lambda t: t[["n", *t.columns[:-1]]],
        lambda t: t.rename(columns={"n": "m"}),
        lambda t: t.iloc[:0],
    ],
)
def test_any_change_of_cells_rows_columns_or_order_changes_the_digest(change):
    assert digest_table(change(TABLE)) != digest_table(TABLE)


def test_empty_tables_are_equal():
    assert digest_table(TABLE.iloc[:0]) == digest_table(pd.DataFrame())


def test_nothing_to_do_ends_the_process_well():
    with pytest.raises(SystemExit) as ended:
        raise NothingToDo("All pairs comply.")
    assert ended.value.code == 0
    assert ended.value.reason == "All pairs comply."


def test_nothing_to_do_is_no_error_of_ours():
    assert not issubclass(NothingToDo, RealignmentError)


def test_judges_are_known_by_their_verdicts_and_measures_of_answers_are_none():
    columns = ["prompt", "before", "after", "after_cut", "after_entropy", "before_b", "after_b", "after_a"]
    assert judge_names(columns) == ["b", "a"]
    assert judge_names(["prompt", "after"]) == []
