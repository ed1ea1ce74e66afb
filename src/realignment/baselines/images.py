"""Draw a comparison as SVG files to be committed: the figures of the page, without a browser or a network."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from realignment.baselines import wording
from realignment.baselines.comparison import Comparison
from realignment.baselines.figure_data import (
    FRONT,
    LOGRATIOS,
    PANEL_HEIGHT,
    PANEL_WIDTH,
    Image,
    Panel,
    axis_range,
    difference_matrix,
    place_labels,
    tradeoff_panels,
)
from realignment.baselines.tables import records
from realignment.reports.style import DISPREFERRED, NEUTRAL, PREFERRED

_STYLE: Any = {
    # Text stays text, which is small, can be searched and differs little from run to run; identifiers of
    # parts come from this salt and not from a random number, so that equal figures are equal files.
    "svg.fonttype": "none", "svg.hashsalt": "realignment",
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"], "font.size": 9,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": NEUTRAL, "axes.grid": True,
    "axes.axisbelow": True, "grid.color": "#ECEEF1", "xtick.color": NEUTRAL, "ytick.color": NEUTRAL,
    "xtick.labelcolor": "#1F2328", "ytick.labelcolor": "#1F2328", "text.color": "#1F2328",
    "axes.labelcolor": "#1F2328", "axes.titlesize": 11, "axes.titlelocation": "left",
}  # fmt: skip


def image_name(name: str, kind: str) -> str:
    """Return the file name of a set's image: `methods-style-tradeoffs.svg`."""
    return f"methods-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}-{kind}.svg"


def write_images(comparison: Comparison, folder: Path) -> list[Image]:
    """Write the three figures of every set; equal comparisons give equal files.

    Args:
        comparison: The figures.
        folder: Where they go, made if it is not there.

    Returns:
        What was written. A figure that would show nothing is left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in comparison.sets:
        with mpl.rc_context(_STYLE):
            for kind, (plot, caption) in IMAGES.items():
                figure = plot(comparison, name)
                if figure is not None:
                    image = Image(name, image_name(name, kind), caption.format(set=name))
                    _save(figure, folder / image.file)
                    written.append(image)
    return written


def _save(figure: Figure, path: Path) -> None:
    """Write, then rename: a reader sees the old file or the new one."""
    part = path.with_name(f".{path.stem}.{uuid4().hex}.svg")
    figure.savefig(part, format="svg", metadata={"Date": None, "Creator": None})
    part.replace(path)


def plot_tradeoffs(comparison: Comparison, name: str) -> Figure | None:
    """Plot the headline over each cost, the Pareto front in blue; None where no cost was measured."""
    panels = tradeoff_panels(comparison, name)
    if not panels:
        return None
    headline = comparison.headline(name)
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(5 * columns, 3.8 * lines), layout="constrained")
    axes = np.atleast_1d(figure.subplots(lines, columns, squeeze=False).ravel())
    for panel, ax in zip(panels, axes, strict=False):
        _plot_tradeoff(ax, panel, headline)
    for ax in axes[len(panels) :]:
        ax.remove()
    return figure


def _plot_tradeoff(ax: Axes, panel: Panel, headline: str) -> None:
    points = panel.points
    front = points[points["front"]].sort_values("x")
    ax.errorbar(
        points["x"], points["y"], xerr=_whiskers(points, "x"), yerr=_whiskers(points, "y"),
        fmt="none", ecolor=NEUTRAL, elinewidth=0.8, alpha=0.55,
    )  # fmt: skip
    ax.plot(front["x"], front["y"], color=FRONT, linestyle=":", linewidth=1.2)
    places = place_labels(points, width=PANEL_WIDTH, height=PANEL_HEIGHT)
    for row, place in zip(records(points), places, strict=True):
        colour = FRONT if row["front"] else NEUTRAL
        ax.plot(row["x"], row["y"], "o", color=colour, mfc=colour if row["front"] else "none", markersize=5.5)
        _annotate(ax, row, place)
    ax.set_xlim(axis_range(points, "x"))
    ax.set_ylim(axis_range(points, "y"))
    better = "more is better" if panel.more_is_better else "less is better"
    ax.set_xlabel(f"{_plain(wording.label_of(panel.metric))} ({better})")
    ax.set_ylabel(_plain(wording.label_of(headline)))
    for axis, metric in ((ax.xaxis, panel.metric), (ax.yaxis, headline)):
        if wording.is_share(metric):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))


def _annotate(ax: Axes, row: dict[Any, Any], place: str) -> None:
    vertical, horizontal = place.split()
    x = {"left": -6, "center": 0, "right": 6}[horizontal]
    y = {"top": 5, "middle": 0, "bottom": -5}[vertical]
    ax.annotate(
        _plain(row["arm"]), (row["x"], row["y"]), xytext=(x, y), textcoords="offset points", fontsize=8,
        ha={"left": "right", "center": "center", "right": "left"}[horizontal],
        va={"top": "bottom", "middle": "center", "bottom": "top"}[vertical],
        fontweight="bold" if row["front"] else "normal",
    )  # fmt: skip


def plot_differences(comparison: Comparison, name: str) -> Figure | None:
    """Plot the matrix of differences, row − column, marked where told apart; None without two methods."""
    matrix = difference_matrix(comparison, name)
    size = len(matrix.arms)
    if size < 2:
        return None
    metric = comparison.headline(name)
    limit = float(np.nanmax(np.abs(matrix.differences), initial=0)) or 1.0
    figure = Figure(figsize=(2.6 + 0.72 * size, 1.9 + 0.42 * size), layout="constrained")
    ax = figure.subplots()
    colours = LinearSegmentedColormap.from_list("differences", [DISPREFERRED, "#F6F7F9", PREFERRED])
    image = ax.imshow(matrix.differences, cmap=colours, vmin=-limit, vmax=limit, aspect="auto")
    for (i, j), difference in np.ndenumerate(matrix.differences):
        if not np.isnan(difference):
            told_apart = matrix.p_values[i, j] < wording.ALPHA
            text = wording.difference(metric, difference) + (" *" if told_apart else "")
            ax.text(
                j,
                i,
                text,
                ha="center",
                va="center",
                fontsize=8,
                fontweight="bold" if told_apart else "normal",
            )
    names = [_plain(arm) for arm in matrix.arms]
    ax.set_xticks(range(size), names, rotation=35, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(size), names)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=ax, label=wording.unit_of(metric), aspect=30)
    if wording.is_share(metric):
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
    ax.set_title(
        f"{wording.name_of(metric)}: row − column;  * corrected p < 0.05 ({matrix.comparisons} comparisons)"
    )
    return figure


def plot_logratios(comparison: Comparison, name: str) -> Figure | None:
    """Plot log-ratios of good, violating and retained answers by method; None where none was measured."""
    leading = comparison.leading(name)
    leading = leading[leading["metric"].isin(LOGRATIOS)]
    arms = [arm for arm in comparison.arms(name) if arm in set(leading["arm"])]
    if not arms:
        return None
    figure = Figure(figsize=(min(12.0, max(6.0, 1.1 * len(arms) + 1)), 3.8), layout="constrained")
    ax = figure.subplots()
    width = 0.25
    for place, (metric, (label, colour)) in enumerate(LOGRATIOS.items()):
        rows = leading[leading["metric"] == metric].set_index("arm").reindex(arms).rename(
            columns={"value": "y", "low": "y_low", "high": "y_high"}
        )  # fmt: skip
        ax.bar(
            np.arange(len(arms)) + (place - 1) * width, rows["y"], width, yerr=_whiskers(rows, "y"),
            label=label, color=colour, error_kw={"ecolor": "#5B626C", "elinewidth": 1},
        )  # fmt: skip
    ax.axhline(0, color=NEUTRAL, linewidth=0.8)
    ax.grid(visible=False, axis="x")
    turned = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if len(arms) > 7 else {}
    ax.set_xticks(range(len(arms)), [_plain(arm) for arm in arms], **turned)
    ax.set_ylabel("log-ratio, nats per answer")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
    return figure


def _whiskers(points: pd.DataFrame, axis: str) -> np.ndarray:
    """Lengths below and above, shape (2, points); none where the data give no interval."""
    below, above = points[axis] - points[f"{axis}_low"], points[f"{axis}_high"] - points[axis]
    # A share of 1 has its upper end at 1 up to rounding.
    return np.asarray(np.nan_to_num(np.stack([below, above]).astype(float)).clip(min=0))


def _plain(text: object) -> str:
    """Text without the dollar signs that would start a formula."""
    return str(text).replace("$", r"\$")


IMAGES: dict[str, tuple[Callable[[Comparison, str], Figure | None], str]] = {
    "tradeoffs": (
        plot_tradeoffs,
        "Each method on {set}: the headline against capability, over-refusal and drift",
    ),
    "differences": (plot_differences, "Differences between all pairs of methods on {set}"),
    "logratios": (plot_logratios, "Log-ratios of good, violating and retained answers on {set}"),
}
"""Kind of image → how it is drawn, and what is shown, of a set."""
