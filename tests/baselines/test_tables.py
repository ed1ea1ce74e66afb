"""The committed table: one row per cell and figure, failed cells as such, read back as it was written."""

import numpy as np
import pandas as pd
import pytest
from made_up_cells import made_up_cells, made_up_items

from realignment.baselines.tables import (
    CELL,
    COLUMNS,
    check_tables,
    label_arms,
    merge_tables,
    methods_table,
    read_methods_table,
    write_table,
)
from realignment.records import DataError

LOST = ("style", "naive_dpo", "beta=0.9", 2, "the loss is NaN at step 7")


@pytest.fixture(scope="module")
def items():
    return made_up_items(methods=("reference", "sft", "trace"), prompts=20)


@pytest.fixture(scope="module")
def cells(items):
    return made_up_cells(items, failed=[LOST])


@pytest.fixture(scope="module")
def table(items, cells):
    return methods_table(items, cells)


def test_every_figure_of_every_cell_is_the_mean_of_its_scored_items(items, cells):
    gaps = items.copy()
    gaps.loc[gaps.index[::7], "value"] = np.nan
    table = methods_table(gaps, cells)
    row = table[
        (table["set"] == "style") & (table["method"] == "trace") & (table["metric"] == "agreement")
    ].iloc[1]
    scores = [
        value
        for value, *key in zip(gaps["value"], *(gaps[name] for name in (*CELL, "metric")), strict=True)
        if key == ["style", "trace", "", row["seed"], "agreement"] and not np.isnan(value)
    ]
    assert 0 < len(scores) < 20
    assert (row["value"], row["n"]) == (pytest.approx(sum(scores) / len(scores)), len(scores))
    assert tuple(table.columns) == COLUMNS


def test_costs_stand_at_every_figure_of_a_cell(table, cells):
    joined = table.merge(cells, on=list(CELL), suffixes=("", "_of_cell"))
    assert len(joined) == len(table)
    for column in ("seconds", "peak_mib", "digest"):
        assert (joined[column] == joined[f"{column}_of_cell"]).all()


def test_a_failed_cell_has_one_row(table):
    (row,) = table[table["metric"] == "failed"].to_dict("records")
    assert [row[name] for name in CELL] == list(LOST[:4])
    assert row["n"] == 0
    assert np.isnan(row["value"])


def test_an_item_that_nobody_scored_makes_no_number(items, cells):
    table = methods_table(items.assign(value=np.nan), cells)
    assert (table["n"] == 0).all()
    assert table["value"].isna().all()


def test_what_is_written_is_read_back(table, tmp_path):
    path = tmp_path / "results" / "methods.csv"
    write_table(table, path)
    read = read_methods_table(path)
    pd.testing.assert_frame_equal(read, table, check_dtype=False, rtol=1e-5)
    assert [file.name for file in path.parent.iterdir()] == ["methods.csv"]
    # Written again, it is the same file.
    before = path.read_bytes()
    write_table(read, path)
    assert path.read_bytes() == before


def test_a_file_with_other_columns_is_named(table, tmp_path):
    path = tmp_path / "methods.csv"
    write_table(table.drop(columns="digest"), path)
    with pytest.raises(DataError, match=r"expected .*'digest'"):
        read_methods_table(path)


def test_a_later_run_replaces_its_cells_and_keeps_the_others(table):
    again = table[(table["set"] == "style") & (table["method"] == "trace")].assign(value=0.25, digest="new")
    more = again.assign(method="trace", variant="kl_weight=0.1")
    merged = merge_tables(table, pd.concat([again, more]))
    assert len(merged) == len(table) + len(more)
    others = table[~((table["set"] == "style") & (table["method"] == "trace"))]
    kept = merged[~((merged["set"] == "style") & (merged["method"] == "trace"))]
    pd.testing.assert_frame_equal(kept.reset_index(drop=True), others.reset_index(drop=True))
    assert (merged.loc[merged["digest"] == "new", "value"] == 0.25).all()
    # Cells stay where they were; a new one comes last.
    order = merged[list(CELL)].drop_duplicates().apply(tuple, axis=1).tolist()
    assert order[: table[list(CELL)].drop_duplicates().shape[0]] == (
        table[list(CELL)].drop_duplicates().apply(tuple, axis=1).tolist()
    )


def test_a_cell_that_failed_before_and_is_finished_now_is_no_longer_failed(table, items):
    new = table[(table["method"] == "sft") & (table["set"] == "style") & (table["seed"] == 2)].assign(
        method=LOST[1], variant=LOST[2]
    )
    assert "failed" not in set(merge_tables(table, new)["metric"])


def test_tables_merge_with_nothing(table):
    pd.testing.assert_frame_equal(merge_tables(table.iloc[:0], table), table)
    pd.testing.assert_frame_equal(merge_tables(table, table.iloc[:0]), table)


def test_arms_are_named_by_method_and_variant():
    table = pd.DataFrame({"method": ["trace", "trace"], "variant": ["", "kl_weight=0.1"]})
    assert label_arms(table).tolist() == ["trace", "trace, kl_weight=0.1"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda items, cells: (items.drop(columns="cluster"), cells), "items lacks the columns"),
        (lambda items, cells: (items.assign(judge=None), cells), "has nulls in"),
        (lambda items, cells: (pd.concat([items, items.head(2)]), cells), "2 items are there twice"),
        (lambda items, cells: (items, pd.concat([cells, cells.head(1)])), "1 cells are there twice"),
        (lambda items, cells: (items.assign(cluster=None), cells), "have no cluster"),
        (lambda items, cells: (items, cells.assign(status="finished")), "status \\['finished'\\]"),
        (lambda items, cells: (items, cells[cells["method"] != "trace"]), "that are not finished"),
    ],
)
def test_tables_that_do_not_fit_are_refused(items, cells, spoil, message):
    with pytest.raises(DataError, match=message):
        check_tables(*spoil(items, cells))
