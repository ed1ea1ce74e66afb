"""Draw a comparison for the page in HTML: trade-offs, the matrix of differences, log-ratios."""

from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from realignment.baselines import wording
from realignment.baselines.comparison import Comparison
from realignment.baselines.figure_data import (
    FRONT,
    LOGRATIOS,
    PANEL_HEIGHT,
    PANEL_WIDTH,
    Matrix,
    Panel,
    axis_range,
    difference_matrix,
    place_labels,
    tradeoff_panels,
)
from realignment.reports.style import (
    DISPREFERRED,
    NEUTRAL,
    PREFERRED,
    empty_figure,
    figure_with_title,
    translucent,
)

_DIVERGING = [
    [0, translucent(DISPREFERRED, 0.8)],
    [0.5, translucent(NEUTRAL, 0.06)],
    [1, translucent(PREFERRED, 0.8)],
]
"""Orange below 0 and blue above it, on any paper."""


def draw_tradeoffs(comparison: Comparison, name: str) -> go.Figure:
    """Draw the headline of a set over each cost; filled points are on the Pareto front of the means.

    Args:
        comparison: The figures.
        name: The set.

    Returns:
        Panels in two columns, with 95 % whiskers.
    """
    headline = comparison.headline(name)
    title = f"{name}: {wording.name_of(headline)} against what it costs"
    panels = tradeoff_panels(comparison, name)
    if not panels:
        return empty_figure(title, "Neither capability nor over-refusal nor drift was measured.")
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure = make_subplots(
        rows=lines,
        cols=columns,
        horizontal_spacing=0.1,
        vertical_spacing=0 if lines == 1 else 0.2 / (lines - 1) / 1.2,
    )
    for place, panel in enumerate(panels):
        row, col = place // columns + 1, place % columns + 1
        _add_tradeoff(figure, panel, headline, row=row, col=col)
    figure.update_layout(showlegend=False)
    return figure_with_title(figure, title, height=110 + (PANEL_HEIGHT + 80) * lines)


def _add_tradeoff(figure: go.Figure, panel: Panel, headline: str, *, row: int, col: int) -> None:
    points = panel.points
    front = points[points["front"]].sort_values("x")
    names = [escape(arm) for arm in points["arm"]]
    labels = [f"<b>{arm}</b>" if best else arm for arm, best in zip(names, points["front"], strict=True)]
    figure.add_scatter(
        x=front["x"].to_numpy(), y=front["y"].to_numpy(), mode="lines", hoverinfo="skip",
        line={"color": FRONT, "width": 1.5, "dash": "dot"}, row=row, col=col,
    )  # fmt: skip
    figure.add_scatter(
        x=points["x"].to_numpy(), y=points["y"].to_numpy(), mode="markers+text",
        text=labels,
        textposition=place_labels(points, width=PANEL_WIDTH, height=PANEL_HEIGHT),
        textfont={"size": 12},
        error_x=_whiskers(points, "x"), error_y=_whiskers(points, "y"),
        marker={
            "size": 9, "color": [FRONT if best else NEUTRAL for best in points["front"]],
            "symbol": ["circle" if best else "circle-open" for best in points["front"]], "line": {"width": 2},
        },
        customdata=names,
        hovertemplate="%{customdata}: %{y}, at %{x}<extra></extra>", row=row, col=col,
    )  # fmt: skip
    better = "more is better" if panel.more_is_better else "less is better"
    for update, metric, axis, note in (
        (figure.update_xaxes, panel.metric, "x", f" ({better})"),
        (figure.update_yaxes, headline, "y", ""),
    ):
        update(
            title_text=escape(wording.label_of(metric)) + note,
            range=axis_range(points, axis),
            row=row,
            col=col,
        )
        if wording.is_share(metric):
            update(tickformat=".0%", row=row, col=col)


def _whiskers(points: pd.DataFrame, axis: str) -> dict[str, object]:
    return {
        "type": "data", "symmetric": False, "width": 0, "thickness": 1, "color": translucent(NEUTRAL, 0.55),
        "array": (points[f"{axis}_high"] - points[axis]).to_numpy(),
        "arrayminus": (points[axis] - points[f"{axis}_low"]).to_numpy(),
    }  # fmt: skip


def draw_differences(comparison: Comparison, name: str) -> go.Figure:
    """Draw the matrix of differences of a set: row − column, marked where Holm's correction tells them apart.

    Args:
        comparison: The figures.
        name: The set.

    Returns:
        A heat map; what cannot be told apart is in grey figures without a mark.
    """
    metric = comparison.headline(name)
    title = f"{name}: differences in {wording.name_of(metric)}, row − column"
    matrix = difference_matrix(comparison, name)
    if len(matrix.arms) < 2:
        return empty_figure(title, "There are no two methods to compare.")
    size = len(matrix.arms)
    values = matrix.differences * (100 if wording.is_share(metric) else 1)  # shares in points
    limit = float(np.nanmax(np.abs(values), initial=0)) or 1.0
    arms = [escape(arm) for arm in matrix.arms]
    figure = go.Figure(
        go.Heatmap(
            z=values, x=arms, y=arms, text=_texts(matrix, metric), texttemplate="%{text}",
            textfont={"size": 12 if size <= 12 else 10}, zmin=-limit, zmax=limit, xgap=2, ygap=2,
            hoverongaps=False, colorscale=_DIVERGING,
            colorbar={"title": {"text": wording.unit_of(metric)}, "thickness": 12, "tickformat": "+.3~g"},
            customdata=matrix.p_values,
            hovertemplate="%{y} − %{x}: %{z:+.3~g}, corrected p %{customdata:.3f}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_xaxes(showgrid=False, showline=False, side="bottom", tickangle=-35)
    figure.update_yaxes(showgrid=False, showline=False, autorange="reversed")
    return figure_with_title(figure, title, height=180 + 40 * size)


def _texts(matrix: Matrix, metric: str) -> list[list[str]]:
    """`+12.3 *` in bold where the two are told apart."""
    texts = []
    for differences, p_values in zip(matrix.differences, matrix.p_values, strict=True):
        row = []
        for difference, p_value in zip(differences, p_values, strict=True):
            text = "" if pd.isna(difference) else wording.difference(metric, difference)
            row.append(f"<b>{text} *</b>" if p_value < wording.ALPHA else text)
        texts.append(row)
    return texts


def draw_logratios(comparison: Comparison, name: str) -> go.Figure:
    """Draw how far training has moved good, violating and retained answers, with 95 % whiskers.

    Args:
        comparison: The figures.
        name: The set.

    Returns:
        Groups of three bars, one group per method.
    """
    title = f"{name}: log-ratios against the reference model"
    leading = comparison.leading(name)
    if not leading["metric"].isin(LOGRATIOS).any():
        return empty_figure(title, "No log-ratios were measured.")
    figure = go.Figure()
    for metric, (label, colour) in LOGRATIOS.items():
        rows = leading[leading["metric"] == metric]
        figure.add_bar(
            x=[escape(arm) for arm in rows["arm"]], y=rows["value"].to_numpy(), name=label,
            marker={"color": colour, "line": {"width": 0}},
            error_y=_whiskers(rows.rename(columns={"value": "y", "low": "y_low", "high": "y_high"}), "y")
            | {"color": NEUTRAL, "thickness": 1.5},
            hovertemplate=f"%{{x}}: %{{y:.3g}} nats<extra>{label}</extra>",
        )  # fmt: skip
    figure.add_hline(y=0)
    figure.update_yaxes(title_text="log-ratio, nats per answer")
    figure.update_xaxes(tickangle=-35 if leading["arm"].nunique() > 7 else 0)
    figure.update_layout(
        barmode="group", bargap=0.3, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
    )
    return figure_with_title(figure, title, height=400, top=86)
