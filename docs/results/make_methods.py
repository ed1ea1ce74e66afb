"""Write the published comparison of methods from its committed cells: table, page and images.

    python docs/results/make_methods.py

Cells are made by `kedro run --config conf/runs/compare-SET.yml`, which goes on where it stopped.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import yaml

from realignment.baselines.comparison import Choices, Comparison, Question, compare
from realignment.baselines.images import write_images
from realignment.baselines.page import render_markdown, replace_section
from realignment.baselines.running import (
    describe_cell,
    list_cells,
    read_cells,
    tabulate_cells,
    tabulate_items,
)
from realignment.baselines.tables import methods_table, write_table
from realignment.methods import merge
from realignment.parameters import BaselinesParameters

ROOT = Path(__file__).parents[2]
CELLS = ROOT / "docs/results/cells"
TABLE = ROOT / "docs/results/methods.csv"
PAGE = ROOT / "docs/results/methods.md"
IMAGES = ROOT / "docs/images"


def read_recipes() -> Iterator[BaselinesParameters]:
    """Yield the parameters of every published set's comparison."""
    base = yaml.safe_load((ROOT / "conf/base/parameters_baselines.yml").read_text(encoding="utf-8"))
    places = {"methods_folder": str(ROOT / "conf/base/methods"), "cells_folder": str(CELLS)}
    for file in sorted((ROOT / "conf/runs").glob("compare-*.yml")):
        run = yaml.safe_load(file.read_text(encoding="utf-8"))["run"]
        if run["pipelines"] != "baselines":
            continue
        environment = ROOT / "conf" / run.get("env", "local") / "parameters.yml"
        layer = yaml.safe_load(environment.read_text(encoding="utf-8")) if environment.is_file() else {}
        sections = merge(base["baselines"], layer.get("baselines", {}))
        yield BaselinesParameters.model_validate(merge(sections, run["params"]["baselines"]) | places)


def compare_published() -> tuple[pd.DataFrame, Comparison]:
    """Return the committed table, and the comparison of all sets."""
    recipes = list(read_recipes())
    records = read_cells(CELLS)
    items, cells = tabulate_items(records), tabulate_cells(records)
    sets = set(cells["set"])
    planned = pd.DataFrame(
        [describe_cell(cell) for recipe in recipes for cell in list_cells(recipe) if recipe.set.name in sets]
    )
    questions = tuple(Question(q.text, q.first, q.second, q.metric) for q in recipes[0].questions)
    choices = Choices(recipes[0].reference_method, questions)
    return methods_table(items, cells), compare(items, cells, choices, planned)


def main() -> None:
    """Write the table, the images and the page's generated part."""
    table, comparison = compare_published()
    write_table(table, TABLE)
    images = write_images(comparison, IMAGES)
    text = render_markdown(comparison, images=images)
    PAGE.write_text(replace_section(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")


if __name__ == "__main__":
    main()
