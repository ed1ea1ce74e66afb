"""Run the cells of a comparison one after another; what is finished is kept, and not done again."""

import gzip
import hashlib
import itertools
import json
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

import realignment
from realignment.baselines.cells import Cell, Laboratory, Settings, empty_items, run_cell
from realignment.methods import load_recipe, merge
from realignment.parameters import BaselinesParameters
from realignment.records import RealignmentError
from realignment.table_files import compute_digest

logger = logging.getLogger(__name__)


class CellError(RealignmentError):
    """A finished cell cannot be read."""


METHOD_CODE = (
    "objective", "impact", "training", "likelihood", "baselines/cells.py", "baselines/measures.py",
)  # fmt: skip
"""Files and folders of that code."""


def list_cells(parameters: BaselinesParameters) -> list[Cell]:
    """List the cells: all methods with the first seed, then all with the second, and so on.

    Args:
        parameters: Methods, variants and seeds.

    Returns:
        The cells in the order in which they are run, so that what is finished is a fair comparison at any
        time. A method that trains nothing has one cell, whatever the seeds and variants.
    """
    folder = Path(parameters.methods_folder)
    recipes = {name: load_recipe(name, folder) for name in parameters.methods}
    variants = {**parameters.variants, **_combine(parameters.grid)} or {"": {}}
    return [
        Cell(
            parameters.set.name, method, name, seed, recipe, merge(parameters.tuned.get(method, {}), changes)
        )
        for place, seed in enumerate(parameters.seeds)
        for method, recipe in recipes.items()
        for rank, (name, changes) in enumerate(variants.items())
        if recipe.trains or (place == 0 and rank == 0)
    ]


def _combine(grid: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """Every combination of the grid's values: its name, and the changes by section."""
    combinations = itertools.product(*grid.values()) if grid else ()
    variants = {}
    for values in combinations:
        chosen = dict(zip(grid, values, strict=True))
        name = ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in chosen.items())
        changes: dict[str, Any] = {}
        for key, value in chosen.items():
            changes = merge(changes, _nest(key.split("."), value))
        variants[name] = changes
    return variants


def _nest(path: Sequence[str], value: Any) -> dict[str, Any]:
    return {path[0]: value if len(path) == 1 else _nest(path[1:], value)}


def run_cells(
    laboratory: Laboratory,
    cells: Sequence[tuple[Cell, Settings]],
    folder: Path,
    *,
    report: Callable[[dict[str, Any]], object] = lambda _: None,
) -> list[dict[str, Any]]:
    """Run every cell that is not finished yet.

    Args:
        laboratory: What all cells share.
        cells: Cells and their parameters.
        folder: Each finished cell is a file of it, named by the digest of data and parameters. A cell of
            other code is done anew, unless `keep_cells_of_other_code`.
        report: Called with the record of every cell, finished before or now.

    Returns:
        A record of each finished cell: what it is, its digest, and the result of `cells.run_cell`. With
        `only_finished` cells that are not finished are left out instead of run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for number, (cell, settings) in enumerate(cells, start=1):
        digest = digest_cell(laboratory, cell, settings)
        path = folder / f"{digest}.json.gz"
        record = _read(path) if path.is_file() else None
        if record is not None and _is_current(record, laboratory.parameters):
            logger.info("%d of %d: %s was finished before", number, len(cells), cell.label)
        elif laboratory.parameters.only_finished:
            logger.info("%d of %d: %s is not finished", number, len(cells), cell.label)
            continue
        else:
            logger.info("%d of %d: %s", number, len(cells), cell.label)
            result = _run_apart(laboratory, cell, settings)
            # By column, and not by row: a file of it is small enough to be committed.
            items = pd.DataFrame(result["items"]).to_dict("list")
            facts = {
                **describe_cell(cell),
                "digest": digest,
                "code": digest_code(),
                "settings": settings.dump(),
            }
            record = {**facts, **result, "items": items}
            _write(path, record)
            logger.info("%s: %s in %.0f s", cell.label, record["status"], record["seconds"])
        report(record)
        records.append(record)
    return records


def describe_cell(cell: Cell) -> dict[str, Any]:
    """Return what names a cell in tables."""
    return {"set": cell.set, "method": cell.method, "variant": cell.variant, "seed": cell.seed}


def digest_cell(laboratory: Laboratory, cell: Cell, settings: Settings) -> str:
    """Digest all that a cell's result depends on but the code: data, model, policy, judges, parameters."""
    comparison, evaluation = laboratory.comparison, laboratory.evaluation
    tables = (comparison.pool, comparison.held_out, comparison.prompts)
    facts = {
        **describe_cell(cell),
        "trains": cell.recipe.trains,
        "policy_in_context": cell.recipe.policy_in_context,
        "settings": settings.dump(),
        "tables": [compute_digest(table) for table in tables],
        "policy": laboratory.policy.digest,
        "judges": [judge.name for judge in laboratory.judges],
        "model": laboratory.model.model_dump(mode="json", exclude={"folder"}),
        "sizes": laboratory.parameters.set.model_dump(mode="json"),
        "answers": evaluation.model_dump(include={"max_new_tokens", "repetition_penalty"}),
        "capability": _without_folders(evaluation.capability.model_dump(mode="json"))
        if laboratory.parameters.capability
        else None,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _without_folders(value: Any) -> Any:
    """Nested values with file names in place of paths: where a project lies is no part of a result."""
    if isinstance(value, dict):
        return {
            key: Path(leaf).name if key == "path" and isinstance(leaf, str) else _without_folders(leaf)
            for key, leaf in value.items()
        }
    return value


@cache
def digest_code() -> str:
    """Digest the code that decides what a training does or how it is measured."""
    root = Path(realignment.__file__).parent
    files = [file for name in METHOD_CODE for file in _python_files(root / name)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _python_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def _run_apart(laboratory: Laboratory, cell: Cell, settings: Settings) -> dict[str, Any]:
    """Run the cell in a process of its own: its memory is its own, and its death is not ours."""
    if not laboratory.parameters.isolate:
        return run_cell(laboratory, cell, settings)
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(run_cell, laboratory, cell, settings).result()
    except BrokenProcessPool:
        reason = "its process died (killed, or out of memory); the cell is not done again by itself"
        logger.warning("%s failed: %s", cell.label, reason)
        return {"status": "failed", "reason": reason, "items": [], "seconds": 0.0, "peak_mib": 0.0}


def _write(path: Path, record: dict[str, Any]) -> None:
    """Write the whole file or none of it; the same record has the same bytes."""
    unfinished = path.with_suffix(".partial")
    unfinished.write_bytes(gzip.compress(json.dumps(record).encode(), mtime=0))
    os.replace(unfinished, path)


def _is_current(record: dict[str, Any], parameters: BaselinesParameters) -> bool:
    """Whether a finished cell counts: it is of this code, or cells of other code are to be kept."""
    return bool(record["code"] == digest_code()) or parameters.keep_cells_of_other_code


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(gzip.decompress(path.read_bytes()))  # type: ignore[no-any-return]
    except (OSError, EOFError, ValueError) as error:
        raise CellError(
            f"The finished cell {path} cannot be read ({error}). Remove it: the cell is done again."
        ) from error


def tabulate_items(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Join the items of all cells: set, method, variant, seed, metric, group, judge, item, cluster, value."""
    parts = list(_item_tables(records))
    return pd.concat(parts, ignore_index=True) if parts else empty_items()


def _item_tables(records: Sequence[dict[str, Any]]) -> Iterator[pd.DataFrame]:
    for record in records:
        if record["items"]:
            names = {name: record[name] for name in ("set", "method", "variant", "seed")}
            yield pd.DataFrame(record["items"]).assign(**names)[list(empty_items())]


def read_cells(folder: Path) -> list[dict[str, Any]]:
    """Read every finished cell of a folder, of whatever set.

    Args:
        folder: As of `run_cells`.

    Returns:
        The records, by set and seed.
    """
    records = [_read(path) for path in sorted(folder.glob("*.json.gz"))]
    return sorted(records, key=lambda record: (record["set"], record["seed"]))


def tabulate_cells(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return one row per cell: what it is, its status and reason, and what it cost."""
    columns = [
        "set", "method", "variant", "seed", "status", "reason", "steps", "tokens", "seconds",
        "seconds_training", "peak_mib", "digest",
    ]  # fmt: skip
    table = pd.DataFrame(records).reindex(columns=columns)
    # A method that trains nothing has no steps and no tokens of training.
    return table.fillna({"steps": 0, "tokens": 0}).astype({"steps": "int64", "tokens": "int64"})
