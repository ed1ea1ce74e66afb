"""The committed table of a comparison: one row per cell and figure, without the single answers."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd

from realignment.records import DataError

CELL = ("set", "method", "variant", "seed")
"""What names a cell: one training (or one model that is not trained) and its measurement."""

FIGURE = ("metric", "group", "judge")
"""What names a figure of a cell."""

ITEM_COLUMNS = (*CELL, *FIGURE, "item", "cluster", "value")
"""Of the table of items: one row per measured item of a cell. Items of a cluster share a prompt; a value that
is NaN is an item that the judge could not judge."""

CELL_COLUMNS = (*CELL, "status", "reason", "steps", "seconds", "tokens", "peak_mib", "digest")
"""Of the table of cells. `status` is `done` or `failed`; `steps` is 0 where nothing is trained."""

COLUMNS = (*CELL, *FIGURE, "value", "n", "seconds", "peak_mib", "digest")
"""Of the committed table."""

DONE, FAILED = "done", "failed"

_TEXTS = ("set", "method", "variant", *FIGURE, "digest")


def label_arms(table: pd.DataFrame) -> pd.Series:
    """Name the arm of each row, a method with its variant: `trace`, `trace, kl_weight=0.1`.

    Args:
        table: Has the columns `method` and `variant`; no variant is ``""``.

    Returns:
        The names, by the index of the table.
    """
    variants = table["variant"].fillna("").astype(str)
    return table["method"].astype(str) + variants.where(variants == "", ", " + variants)


def methods_table(items: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Tabulate every figure of every cell; a cell that failed has one row, whose metric is `failed`.

    Args:
        items: Columns `ITEM_COLUMNS`.
        cells: Columns `CELL_COLUMNS`.

    Returns:
        Columns `COLUMNS`, cells in their order, figures in order of appearance; `value` is the mean over the
        `n` items that were scored, NaN where none was.

    Raises:
        DataError: See `check_tables`.
    """
    check_tables(items, cells)
    figures = items.groupby([*CELL, *FIGURE], sort=False)["value"].agg(["mean", "count"]).reset_index()
    figures = figures.rename(columns={"mean": "value", "count": "n"})
    failed = cells.loc[cells["status"] == FAILED, list(CELL)].assign(
        metric=FAILED, group="", judge="", value=float("nan"), n=0
    )
    costs = cells[[*CELL, "seconds", "peak_mib", "digest"]].assign(place=range(len(cells)))
    rows = pd.concat([figures, failed], ignore_index=True).merge(costs, on=list(CELL), how="left")
    return rows.sort_values("place", kind="stable")[list(COLUMNS)].reset_index(drop=True)


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one mapping per row."""
    return [{str(column): value for column, value in row.items()} for row in table.to_dict("records")]


def check_tables(items: pd.DataFrame, cells: pd.DataFrame) -> None:
    """Check that items and cells belong together.

    Args:
        items: The items.
        cells: The cells.

    Raises:
        DataError: A column or a key is missing, a cell or an item is there twice, an item has no cluster or
            is of no finished cell, or a status is unknown.
    """
    for name, table, columns in (("items", items, ITEM_COLUMNS), ("cells", cells, CELL_COLUMNS)):
        missing = [column for column in columns if column not in table]
        if missing:
            raise DataError(f"The table of {name} lacks the columns {missing}; expected {list(columns)}.")
        keys = [column for column in (*CELL, *FIGURE) if column in columns]
        empty = [column for column in keys if table[column].isna().any()]
        if empty:
            raise DataError(f'The table of {name} has nulls in {empty}; expected "" where there is nothing.')
    statuses = set(cells["status"]) - {DONE, FAILED}
    if statuses:
        raise DataError(f"Found cells with status {sorted(statuses)}; expected `{DONE}` or `{FAILED}`.")
    for name, table, keys in (("items", items, [*CELL, *FIGURE, "item"]), ("cells", cells, list(CELL))):
        twice = table[table.duplicated(keys)]
        if len(twice):
            raise DataError(
                f"{len(twice)} {name} are there twice, the first {twice.iloc[0][keys].to_dict()}; expected "
                "one row each. Keep the rows of the latest run of a cell."
            )
    if items["cluster"].isna().any():
        raise DataError(
            f"{int(items['cluster'].isna().sum())} items have no cluster; expected the id of the prompt. "
            "Give an item that stands alone a cluster of its own."
        )
    _check_finished(items, cells)


def _check_finished(items: pd.DataFrame, cells: pd.DataFrame) -> None:
    finished = pd.MultiIndex.from_frame(cells.loc[cells["status"] == DONE, list(CELL)])
    measured = items[list(CELL)].drop_duplicates()
    unknown = measured[~pd.MultiIndex.from_frame(measured).isin(finished)]
    if len(unknown):
        raise DataError(
            f"Found items of {len(unknown)} cells that are not finished, the first "
            f"{unknown.iloc[0].to_dict()}; expected a row with status `{DONE}` in the table of cells. Leave "
            "out what a failed cell measured."
        )


def merge_tables(earlier: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Put the cells of a run into the table of earlier runs; a cell that is in both is the new one.

    Args:
        earlier: Columns `COLUMNS`.
        table: Columns `COLUMNS`.

    Returns:
        All cells: those that were there, in their order, then the new ones.
    """
    key = list(CELL)
    places = {cell: place for place, cell in enumerate(_cells_of(pd.concat([earlier[key], table[key]])))}
    new = set(_cells_of(table))
    kept = earlier[[cell not in new for cell in earlier[key].itertuples(index=False, name=None)]]
    parts = [part for part in (kept, table) if len(part)]
    merged = pd.concat(parts, ignore_index=True) if parts else table
    order = [places[cell] for cell in merged[key].itertuples(index=False, name=None)]
    return (
        merged.assign(place=order).sort_values("place", kind="stable")[list(COLUMNS)].reset_index(drop=True)
    )


def _cells_of(table: pd.DataFrame) -> list[tuple[object, ...]]:
    return list(dict.fromkeys(table[list(CELL)].itertuples(index=False, name=None)))


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, so that a reader sees the old file or the new one, never a part.

    Args:
        table: The table.
        path: The file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid4().hex}")
    # Six digits: more would differ between machines, and say nothing.
    table.to_csv(part, index=False, float_format="%.6g", lineterminator="\n")
    part.replace(path)


def read_methods_table(path: Path) -> pd.DataFrame:
    """Read what `write_table` has written of a `methods_table`.

    Args:
        path: The file.

    Returns:
        Columns `COLUMNS`.

    Raises:
        DataError: The file has other columns.
    """
    table = pd.read_csv(path, dtype=dict.fromkeys(_TEXTS, str), keep_default_na=False, na_values={
        name: [""] for name in ("value", "seconds", "peak_mib")
    })  # fmt: skip
    if tuple(table.columns) != COLUMNS:
        raise DataError(f"{path} has the columns {list(table.columns)}; expected {list(COLUMNS)}.")
    return table
