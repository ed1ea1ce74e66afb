"""What the figures show, however they are drawn: trade-offs, the matrix of differences, places of labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from realignment.baselines import wording
from realignment.baselines.blocks import order_metrics
from realignment.baselines.comparison import Comparison
from realignment.baselines.crossed import Floats
from realignment.baselines.tables import records
from realignment.records import Disposition
from realignment.reports.style import DISPOSITION_COLOURS, DISPREFERRED, PREFERRED

COSTS = {"capability": True, "over_refusal": False, "kl_drift": False}
"""What the headline is drawn against; whether more of it is better."""

LOGRATIOS = {
    "logratio_preferred": ("good answers", PREFERRED),
    "logratio_dispreferred": ("violating answers", DISPREFERRED),
    "logratio_retained": ("retained answers", DISPOSITION_COLOURS[Disposition.RETAIN]),
}
"""Metric → name and colour of its bars."""

FRONT = "#0072B2"
"""Colour of the Pareto front: blue of Okabe & Ito's palette, which reads on both papers."""

PANEL_WIDTH, PANEL_HEIGHT = 440, 330
"""Pixels of a trade-off, for which its labels are placed."""

CHARACTER, LINE = 6.6, 14
"""Pixels of an average character and of a line at the size of labels."""

PLACES = (
    "top right", "top left", "bottom right", "bottom left", "top center", "bottom center", "middle right",
    "middle left",
)  # fmt: skip
"""Sides of a point where its label may stand, best first: at the corners no interval runs through it."""


@dataclass(frozen=True, slots=True)
class Image:
    """A file with a figure of a set.

    Attributes:
        set: The set.
        file: Its name, without a folder.
        caption: What it shows.
    """

    set: str
    file: str
    caption: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A trade-off: the headline over one cost.

    Attributes:
        metric: The cost.
        more_is_better: Whether more of the cost is better.
        points: One row per arm: arm, x, x_low, x_high, y, y_low, y_high, front (of the Pareto front).
    """

    metric: str
    more_is_better: bool
    points: pd.DataFrame


def tradeoff_panels(comparison: Comparison, name: str) -> list[Panel]:
    """Collect the headline of a set over each cost that was measured.

    Args:
        comparison: The figures.
        name: The set.

    Returns:
        One panel per capability task, over-refusal and drift, as far as they are there.
    """
    leading = comparison.leading(name)
    headline = comparison.headline(name)
    y = _column(leading, headline, "y")
    panels = []
    for metric in order_metrics(leading["metric"].tolist(), headline):
        kind = wording.kind_of(metric)
        if kind in COSTS:
            points = y.merge(_column(leading, metric, "x"), on="arm")
            points = points.assign(
                front=pareto_front(points["x"].to_numpy(), points["y"].to_numpy(), COSTS[kind])
            )
            panels.append(Panel(metric, COSTS[kind], points))
    return panels


def _column(leading: pd.DataFrame, metric: str, axis: str) -> pd.DataFrame:
    rows = leading.loc[leading["metric"] == metric, ["arm", "value", "low", "high"]]
    return rows.rename(columns={"value": axis, "low": f"{axis}_low", "high": f"{axis}_high"})


def pareto_front(x: Floats, y: Floats, more_is_better: bool) -> npt.NDArray[np.bool_]:
    """Find the points that no other is better than in one respect and at least as good as in the other.

    Args:
        x: Costs, shape (n,).
        y: What should be high, shape (n,).
        more_is_better: Whether x too should be high.

    Returns:
        Shape (n,).
    """
    cost = -x if more_is_better else x
    no_worse = (cost[:, None] <= cost) & (y[:, None] >= y)  # row i is no worse than column j
    better = (cost[:, None] < cost) | (y[:, None] > y)
    return np.asarray(~(no_worse & better).any(axis=0))


@dataclass(frozen=True, slots=True)
class Matrix:
    """All pairs of arms by the headline, row − column.

    Attributes:
        arms: From the highest mean to the lowest.
        differences: Shape (arms, arms); NaN on the diagonal.
        p_values: Corrected for all pairs, shape (arms, arms).
        comparisons: Number of pairs.
    """

    arms: list[str]
    differences: Floats
    p_values: Floats
    comparisons: int


def difference_matrix(comparison: Comparison, name: str) -> Matrix:
    """Arrange the differences of all pairs of a set.

    Args:
        comparison: The figures.
        name: The set.

    Returns:
        The matrix; empty where there are no two arms.
    """
    table = comparison.all_pairs(name)
    leading = comparison.leading(name)
    means = leading[leading["metric"] == comparison.headline(name)].sort_values(
        "value", ascending=False, kind="stable"
    )
    arms = [str(arm) for arm in means["arm"]]
    places = {arm: place for place, arm in enumerate(arms)}
    differences = np.full((len(arms), len(arms)), np.nan)
    p_values = np.full((len(arms), len(arms)), np.nan)
    for row in records(table):
        i, j = places[row["first"]], places[row["second"]]
        differences[i, j], differences[j, i] = row["difference"], -row["difference"]
        p_values[i, j] = p_values[j, i] = row["p_holm"]
    return Matrix(arms, differences, p_values, int(table["comparisons"].max()) if len(table) else 0)


def place_labels(points: pd.DataFrame, *, width: float, height: float) -> list[str]:
    """Choose on which side of its point each label stands, so that few cover each other.

    Args:
        points: Columns arm, x and y; their range, with the intervals, fills the panel.
        width: Of the panel, in pixels.
        height: Of the panel, in pixels.

    Returns:
        One of `PLACES` per point.
    """
    centres = list(zip(_pixels(points, "x", width), _pixels(points, "y", height), strict=True))
    # Wider than a point: a label that ends at another point would seem to be of that one.
    markers = [(x - 26, y - 9, x + 26, y + 9) for x, y in centres]
    choices = [
        {place: _box(place, x, y, CHARACTER * len(str(arm))) for place in PLACES}
        for arm, (x, y) in zip(points["arm"], centres, strict=True)
    ]
    chosen = [PLACES[0]] * len(points)
    # Each label in turn gives way to all others, until nothing changes or for a few rounds.
    for _ in range(5):
        before = list(chosen)
        for i, boxes in enumerate(choices):
            others = [choices[j][chosen[j]] for j in range(len(points)) if j != i]
            others += [marker for j, marker in enumerate(markers) if j != i]
            costs = {place: _cost(box, others, width, height) for place, box in boxes.items()}
            chosen[i] = min(PLACES, key=costs.__getitem__)  # the first of equally good ones
        if chosen == before:
            break
    return chosen


def axis_range(points: pd.DataFrame, axis: str) -> tuple[float, float]:
    """Return the range of an axis that holds all intervals, with a margin for the labels."""
    ends = points[[axis, f"{axis}_low", f"{axis}_high"]].to_numpy(dtype=float)
    if not np.isfinite(ends).any():
        return -1.0, 1.0
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    margin = 0.12 * (high - low) if high > low else max(abs(high), 1.0) * 0.1
    return low - margin, high + margin


Box = tuple[float, float, float, float]


def _pixels(points: pd.DataFrame, axis: str, size: float) -> Floats:
    low, high = axis_range(points, axis)
    return (points[axis].to_numpy(dtype=float) - low) / (high - low) * size


def _box(place: str, x: float, y: float, width: float) -> Box:
    """Left, bottom, right, top of a label at this side of a point."""
    vertical, horizontal = place.split()
    left = {"left": x - 8 - width, "center": x - width / 2, "right": x + 8}[horizontal]
    bottom = {"top": y + 7, "middle": y - LINE / 2, "bottom": y - 7 - LINE}[vertical]
    return left, bottom, left + width, bottom + LINE


def _cost(box: Box, taken: Sequence[Box], width: float, height: float) -> float:
    """Pixels of the label that cover others or lie outside."""
    left, bottom, right, top = box
    covered = sum(
        max(0.0, min(right, other[2]) - max(left, other[0]))
        * max(0.0, min(top, other[3]) - max(bottom, other[1]))
        for other in taken
    )
    outside = max(0.0, -left) + max(0.0, right - width) + max(0.0, -bottom) + max(0.0, top - height)
    return covered + 100 * outside
