"""Draw shares before and after as dots with 95 % whiskers: a row per panel, a column per judge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from realignment.records import HEADLINE_GROUPS
from realignment.reports.formats import name_of
from realignment.reports.style import figure_with_title

HEADLINES = tuple(HEADLINE_GROUPS.values())
"""Groups that come first, with bold names."""

_LINE, _GAP = 46, 96
"""Pixels per group, and between two panels: room for an axis title and the next heading."""


@dataclass(frozen=True)
class Panel:
    """One row of panels: what stands above it, and the rows of the evaluation table that it shows.

    Attributes:
        heading: Above the panels.
        axis: What the shares are of, below each panel.
        rows: Rows of one metric by all judges.
        groups: The groups, from top to bottom.
        labels: Group → its text, where it is not that of `formats.name_of`.
    """

    heading: str
    axis: str
    rows: pd.DataFrame
    groups: Sequence[str]
    labels: Mapping[str, str] = field(default_factory=dict)


def draw_panels(title: str, panels: Sequence[Panel]) -> go.Figure:
    """Draw the panels one below the other, with one column per judge.

    Args:
        title: Of the whole figure.
        panels: One at least, each with one group or more.

    Returns:
        The figure.
    """
    judges = list(dict.fromkeys(pd.concat([panel.rows["judge"] for panel in panels]).fillna("")))
    figure = make_subplots(
        rows=len(panels),
        cols=len(judges),
        shared_yaxes=True,
        row_heights=[len(panel.groups) for panel in panels],
        vertical_spacing=_GAP / _plot_height(panels),
        horizontal_spacing=0.05,
    )
    for row, panel in enumerate(panels, start=1):
        for col, judge in enumerate(judges, start=1):
            _add_judge(figure, panel, judge, row=row, col=col)
    return _finish(figure, title, panels)


def _add_judge(figure: go.Figure, panel: Panel, judge: str, *, row: int, col: int) -> None:
    rows = panel.rows[panel.rows["judge"].fillna("") == judge]
    # The first group is at the top, so it has the greatest height.
    heights = {name: len(panel.groups) - 1 - place for place, name in enumerate(panel.groups)}
    # Numbers also where a judge has no row here, such as one that names no rules.
    height = np.array([heights[name] for name in rows["group"].astype(str)], dtype=float)
    for time, offset, symbol in (("before", 0.14, "circle-open"), ("after", -0.14, "circle")):
        figure.add_scatter(
            x=rows[time].to_numpy(),
            y=height + offset,
            error_x={
                "type": "data",
                "symmetric": False,
                "array": (rows[f"{time}_high"] - rows[time]).to_numpy(),
                "arrayminus": (rows[time] - rows[f"{time}_low"]).to_numpy(),
                "width": 0,
                "thickness": 2,
            },
            customdata=rows[["group", "n", f"{time}_low", f"{time}_high"]].to_numpy(),
            hovertemplate="%{customdata[0]}: %{x:.1%} (%{customdata[2]:.1%} to %{customdata[3]:.1%}), "
            f"n = %{{customdata[1]}}<extra>{time}</extra>",
            mode="markers",
            marker={"symbol": symbol, "size": 10, "line": {"width": 2}},
            name=time,
            legendgroup=time,
            showlegend=row == col == 1,
            row=row,
            col=col,
        )
    label = f"{panel.axis} (judge: {escape(judge)})" if judge else panel.axis
    figure.update_xaxes(title_text=label, tickformat=".0%", range=[-0.02, 1.02], row=row, col=col)
    figure.update_yaxes(range=[-0.6, len(heights) - 0.4], showgrid=False, row=row, col=col)
    if col == 1:
        texts = _tick_texts(panel, rows)
        figure.update_yaxes(tickvals=list(heights.values()), ticktext=texts, row=row, col=1)
    else:  # the groups are named on the left alone
        figure.update_yaxes(ticks="", row=row, col=col)


def _tick_texts(panel: Panel, rows: pd.DataFrame) -> list[str]:
    """Text of each group, with the number of items that the first judge has scored."""
    sizes = dict(zip(rows["group"].astype(str), rows["n"], strict=True))
    texts = []
    for group in panel.groups:
        text = escape(panel.labels.get(group, name_of(group)))
        text = f"<b>{text}</b>" if group in HEADLINES else text
        texts.append(f"{text}  (n = {sizes[group]:.0f})" if group in sizes else text)
    return texts


def _finish(figure: go.Figure, title: str, panels: Sequence[Panel]) -> go.Figure:
    for row, panel in enumerate(panels, start=1):
        axis = next(figure.select_yaxes(row=row, col=1))
        figure.add_annotation(
            text=f"<b>{panel.heading}</b>",
            x=0,
            y=axis.domain[1],
            xref="paper",
            yref="paper",
            xanchor="left",
            yanchor="bottom",
            yshift=4,
            showarrow=False,
        )
    figure.update_layout(legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"})
    return figure_with_title(figure, title, height=_plot_height(panels) + 80 + 56, top=80)


def _plot_height(panels: Sequence[Panel]) -> int:
    return _LINE * sum(len(panel.groups) for panel in panels) + _GAP * (len(panels) - 1)
