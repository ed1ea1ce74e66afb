"""The comparison of a run's cells, as its page and its figures show it."""

from collections.abc import Mapping, Sequence

import pandas as pd

from realignment.baselines.cells import Cell
from realignment.baselines.comparison import Choices, Comparison, Question, compare
from realignment.baselines.running import describe_cell
from realignment.baselines.tables import DONE
from realignment.parameters import BaselinesParameters
from realignment.records import DataError


def compare_cells(
    items: pd.DataFrame,
    cells: pd.DataFrame,
    planned: Sequence[Cell],
    judges: Mapping[str, str],
    parameters: BaselinesParameters,
) -> Comparison:
    """Compare the methods of a run.

    Args:
        items: From `running.tabulate_items`.
        cells: From `running.tabulate_cells`.
        planned: All cells of the comparison.
        judges: Metric → the judge that leads: the best measured one.
        parameters: The reference method and the questions.

    Returns:
        The comparison. Where the reference method has no finished cell, the first method that has one takes
        its place; questions are asked where both methods are among the planned ones.

    Raises:
        DataError: No cell is finished.
    """
    finished = cells.loc[cells["status"] == DONE, "method"].tolist()
    if not finished:
        reasons = "; ".join(cells["reason"].unique()[:3])
        raise DataError(f"None of {len(planned)} cells is finished, so nothing can be compared. {reasons}")
    methods = {cell.method for cell in planned}
    reference = parameters.reference_method
    variants = {cell.variant for cell in planned}
    arms = [_arm(method, variant) for method in finished for variant in sorted(variants)]
    comparator = next((arm for arm in arms if arm.partition(",")[0] == reference), None)
    asked = [q for q in parameters.questions if {q.first, q.second} <= methods] if variants == {""} else []
    questions = tuple(Question(q.text, q.first, q.second, q.metric) for q in asked)
    choices = Choices(
        comparator or _arm_of(cells, finished[0]), questions, judges={parameters.set.name: judges}
    )
    table = pd.DataFrame([describe_cell(cell) for cell in planned])
    return compare(items, cells, choices, table)


def _arm(method: str, variant: str) -> str:
    return f"{method}, {variant}" if variant else method


def _arm_of(cells: pd.DataFrame, method: str) -> str:
    row = cells[(cells["method"] == method) & (cells["status"] == DONE)].iloc[0]
    return _arm(method, row["variant"])
