"""Draw the figure that answers the question of a run: agreement and over-refusal, before and after."""

from html import escape

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from realignment.reports.formats import name_of
from realignment.reports.style import empty_figure, figure_with_title

PANELS = {
    "agreement": "Agreement with the new policy",
    "over_refusal": "Over-refusal: the policy applied where it does not apply",
}
_HEADLINES = ("regulated", "overall")
_KINDS = ("domain", "kind", "origin")
_LINE, _GAP = 46, 96
"""Pixels per group, and between two panels: room for an axis title and the next heading."""


def draw_agreement(table: pd.DataFrame) -> go.Figure:
    """Draw dots with 95 % whiskers before and after, headline groups first; one column of panels per judge.

    Args:
        table: The `evaluation_table`; its rows of agreement and over-refusal are drawn.

    Returns:
        The figure.
    """
    title = "Agreement and over-refusal, before and after, with 95 % intervals"
    rows = table[table["metric"].isin(PANELS)] if "metric" in table else table
    if rows.empty:
        return empty_figure(title, "No responses were judged.")
    judges = list(dict.fromkeys(rows["judge"].fillna("")))
    groups = {metric: sort_groups(rows.loc[rows["metric"] == metric, "group"]) for metric in PANELS}
    groups = {metric: names for metric, names in groups.items() if names}
    figure = make_subplots(
        rows=len(groups),
        cols=len(judges),
        shared_yaxes=True,
        row_heights=[len(names) for names in groups.values()],
        vertical_spacing=_GAP / _plot_height(groups),
        horizontal_spacing=0.05,
    )
    for row, (metric, names) in enumerate(groups.items(), start=1):
        for col, judge in enumerate(judges, start=1):
            panel = rows[(rows["metric"] == metric) & (rows["judge"].fillna("") == judge)]
            _add_panel(figure, panel, names, row=row, col=col, label=_axis_title(metric, judge))
    return _finish(figure, title, groups)


def sort_groups(groups: pd.Series) -> list[str]:
    """Sort groups: headline groups first, then domains, kinds and origins, each in the table's order."""
    names = list(dict.fromkeys(map(str, groups)))
    ranks = {kind: rank for rank, kind in enumerate(_KINDS)}
    return sorted(
        names, key=lambda name: (name not in _HEADLINES, ranks.get(name.partition(":")[0], len(ranks)))
    )


def _axis_title(metric: str, judge: str) -> str:
    share = "share that complies" if metric == "agreement" else "share that applies the policy"
    return f"{share} (judge: {escape(judge)})" if judge else share


def _add_panel(
    figure: go.Figure, rows: pd.DataFrame, names: list[str], *, row: int, col: int, label: str
) -> None:
    # The first group is at the top, so it has the greatest height.
    heights = {name: len(names) - 1 - place for place, name in enumerate(names)}
    height = rows["group"].astype(str).map(heights)
    for time, offset, symbol in (("before", 0.14, "circle-open"), ("after", -0.14, "circle")):
        figure.add_scatter(
            x=rows[time].to_numpy(),
            y=(height + offset).to_numpy(),
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
    _label_axes(figure, rows, heights, row=row, col=col, label=label)


def _label_axes(
    figure: go.Figure, rows: pd.DataFrame, heights: dict[str, int], *, row: int, col: int, label: str
) -> None:
    figure.update_xaxes(title_text=label, tickformat=".0%", range=[-0.02, 1.02], row=row, col=col)
    figure.update_yaxes(range=[-0.6, len(heights) - 0.4], showgrid=False, row=row, col=col)
    if col == 1:
        sizes = dict(zip(rows["group"].astype(str), rows["n"], strict=True))
        texts = [_tick(name, sizes.get(name)) for name in heights]
        figure.update_yaxes(tickvals=list(heights.values()), ticktext=texts, row=row, col=1)


def _tick(group: str, n: float | None) -> str:
    text = escape(name_of(group))
    text = f"<b>{text}</b>" if group in _HEADLINES else text
    return f"{text}  (n = {n:.0f})" if n is not None else text


def _finish(figure: go.Figure, title: str, groups: dict[str, list[str]]) -> go.Figure:
    for row, metric in enumerate(groups, start=1):
        axis = next(figure.select_yaxes(row=row, col=1))
        figure.add_annotation(
            text=f"<b>{PANELS[metric]}</b>",
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
    return figure_with_title(figure, title, height=_plot_height(groups) + 80 + 56, top=80)


def _plot_height(groups: dict[str, list[str]]) -> int:
    return _LINE * sum(map(len, groups.values())) + _GAP * (len(groups) - 1)
