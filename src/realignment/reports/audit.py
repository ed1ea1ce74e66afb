"""Draw the figures of an audit: what the oracle gets right, and whether its confidence can be trusted."""

from collections.abc import Mapping
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from realignment.records import Disposition
from realignment.reports.style import (
    DISPOSITION_COLOURS,
    NEUTRAL,
    PREFERRED,
    empty_figure,
    figure_with_title,
    translucent,
)

ORDER = [Disposition.INVERT, Disposition.PUNISH, Disposition.RETAIN, Disposition.REVIEW]
HEADLINES = {"accuracy": "right disposition", "misrouted": "misrouted", "kappa": "Cohen's κ"}
NAMES = {"f1": "F1", "kappa": "Cohen's κ"}


def draw_scores(metrics: pd.DataFrame) -> go.Figure:
    """Draw every share with its 95 % interval: all pairs, dispositions, verdicts, rules, between oracles.

    Args:
        metrics: The table `audit_metrics`.

    Returns:
        The figure, one panel per scope that has figures.
    """
    title = "The oracle against the truth, with 95 % intervals"
    panels = {name: rows for name, rows in _panels(metrics) if len(rows)}
    if not panels:
        return empty_figure(title, "Nothing was audited.")
    # In rows of 30 pixels; between two panels are 58 pixels for the heading, as a share of the plot.
    heights = [len(rows) + 0.6 for rows in panels.values()]
    plot_height = 30 * sum(heights) + 58 * (len(panels) - 1)
    figure = make_subplots(
        rows=len(panels), cols=1, row_heights=heights, vertical_spacing=58 / plot_height, shared_xaxes=False,
        subplot_titles=[f"<b>{name}</b>" for name in panels],
    )  # fmt: skip
    for place, rows in enumerate(panels.values(), start=1):
        _add_dots(figure, rows, place)
    figure.update_annotations(x=0, xanchor="left", font={"size": 13})
    low = min(0.0, float(metrics["low"].min()))
    figure.update_xaxes(range=[low - 0.02, 1.02], tickformat=".1f")
    figure.update_layout(showlegend=False)
    return figure_with_title(figure, title, height=int(110 + plot_height), top=76)


def _panels(metrics: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Heading and labelled rows of each panel, some without rows."""

    def select(scope: str) -> pd.DataFrame:
        return metrics[(metrics["scope"] == scope) & metrics["value"].notna()]

    def label(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.assign(label=rows["group"] + ": " + rows["metric"].replace(NAMES))

    dispositions = select("disposition")
    is_overall = dispositions["group"] == "all pairs"
    overall = dispositions[is_overall]
    return [
        ("All pairs", overall.assign(label=overall["metric"].map(HEADLINES))),
        ("By disposition", label(dispositions[~is_overall])),
        ("Verdicts (precision, recall and F1 of violations)", label(select("verdict"))),
        ("Rules", label(select("rule"))),
        ("Between oracles", label(pd.concat([select("stability"), select("agreement")]))),
    ]


def _add_dots(figure: go.Figure, rows: pd.DataFrame, place: int) -> None:
    labels = [escape(str(label), quote=False) for label in rows["label"]]
    colours: dict[str, str] = {str(d): colour for d, colour in DISPOSITION_COLOURS.items()}
    figure.add_scatter(
        x=rows["value"].to_numpy(),
        y=labels,
        mode="markers",
        marker={"size": 9, "color": [colours.get(str(group), NEUTRAL) for group in rows["group"]]},
        error_x={
            "type": "data", "symmetric": False, "thickness": 1.5, "width": 4, "color": NEUTRAL,
            "array": (rows["high"] - rows["value"]).to_numpy(),
            "arrayminus": (rows["value"] - rows["low"]).to_numpy(),
        },
        customdata=rows[["low", "high", "n"]].to_numpy(),
        hovertemplate="%{y}: %{x:.3f} (%{customdata[0]:.3f} to %{customdata[1]:.3f}), n = %{customdata[2]}"
        "<extra></extra>",
        row=place,
        col=1,
    )  # fmt: skip
    figure.update_yaxes(categoryorder="array", categoryarray=labels[::-1], row=place, col=1)


def draw_confusion(table: pd.DataFrame) -> go.Figure:
    """Draw assigned against true dispositions: estimated pairs of the population, with intervals.

    Args:
        table: The table `audit_confusion`.

    Returns:
        A heat map whose colours are shares of the assigned disposition.
    """
    title = "What the pairs became, and what they are: estimated pairs"
    table = table[table.groupby("assigned")["pairs"].transform("sum") > 0]
    if table.empty:
        return empty_figure(title, "Nothing was audited.")
    rows = [str(disposition) for disposition in ORDER if disposition in set(table["assigned"])]
    columns = [str(disposition) for disposition in ORDER[:3]]  # no pair is in review in truth
    # One cell per assigned and true disposition: its figures, and its share of the row.
    totals = table.groupby("assigned")["pairs"].transform("sum").to_numpy()
    cells = table.assign(share=table["pairs"] / totals).set_index(["assigned", "true"]).to_dict("index")
    shares = []
    texts = []
    for row in rows:
        shares.append([cells[row, column]["share"] for column in columns])
        texts.append([_cell_text(cells[row, column]) for column in columns])
    figure = go.Figure(
        go.Heatmap(
            z=shares,
            x=columns,
            y=rows,
            text=texts,
            texttemplate="%{text}",
            colorscale=[[0, translucent(PREFERRED, 0.04)], [1, translucent(PREFERRED, 0.85)]],
            zmin=0,
            zmax=1,
            xgap=3,
            ygap=3,
            colorbar={"title": {"text": "share of row"}, "tickformat": ".0%", "thickness": 12},
            hovertemplate="assigned %{y}, in truth %{x}: %{z:.1%} of the row<extra></extra>",
        )
    )
    figure.update_xaxes(title_text="in truth", side="bottom", showgrid=False)
    figure.update_yaxes(title_text="assigned", autorange="reversed", showgrid=False)
    return figure_with_title(figure, title, height=140 + 84 * len(rows))


def _cell_text(row: Mapping[Any, Any]) -> str:
    interval = f"{row['low']:,.0f} to {row['high']:,.0f}"
    return f"<b>{row['pairs']:,.0f}</b><br>{interval}<br>{row['audited']:.0f} audited"


def draw_reliability(bins: pd.DataFrame) -> go.Figure:
    """Draw the accuracy of verdicts by their confidence; below the line the oracle is overconfident.

    Args:
        bins: The table `audit_reliability`.

    Returns:
        The figure.
    """
    title = "Is the oracle as right as it is sure?"
    if bins.empty:
        return empty_figure(title, "No verdict was audited.")
    figure = go.Figure()
    figure.add_scatter(
        x=[0.5, 1], y=[0.5, 1], mode="lines", name="perfectly calibrated",
        line={"color": NEUTRAL, "dash": "dot"},
        hoverinfo="skip",
    )  # fmt: skip
    figure.add_scatter(
        x=bins["confidence"].to_numpy(),
        y=bins["accuracy"].to_numpy(),
        mode="markers+text",
        name="verdicts, by confidence",
        text=[f"{share:.0%}" for share in bins["share"]],
        textposition="bottom left",
        marker={"size": 10, "color": PREFERRED},
        error_y={
            "type": "data", "symmetric": False, "thickness": 1.5, "width": 4, "color": PREFERRED,
            "array": (bins["high"] - bins["accuracy"]).to_numpy(),
            "arrayminus": (bins["accuracy"] - bins["low"]).to_numpy(),
        },
        customdata=bins[["n"]].to_numpy(),
        hovertemplate="confidence %{x:.2f}: right %{y:.2f}, n = %{customdata[0]}<extra></extra>",
    )  # fmt: skip
    low = min(0.5, float(bins["low"].min()))
    figure.update_xaxes(title_text="mean confidence of the verdicts", range=[0.46, 1.02])
    figure.update_yaxes(title_text="share that is right", range=[low - 0.04, 1.04])
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    return figure_with_title(figure, title, height=420, top=84)


def draw_growth(history: pd.DataFrame) -> go.Figure:
    """Draw the estimates as the audit grew: where the band is still wide or moving, more pairs would help.

    Args:
        history: The table `audit_history`.

    Returns:
        The figure.
    """
    title = "Does the audit suffice? Estimates as it grew"
    if history.empty:
        return empty_figure(title, "Nothing was audited.")
    series = {
        "accuracy": ("right disposition", DISPOSITION_COLOURS[Disposition.RETAIN]),
        "misrouted": ("misrouted", DISPOSITION_COLOURS[Disposition.PUNISH]),
    }
    figure = go.Figure()
    for column, (name, colour) in series.items():
        x = history["step"].to_numpy()
        figure.add_scatter(
            x=[*x, *x[::-1]], y=[*history[f"{column}_high"], *history[f"{column}_low"][::-1]], fill="toself",
            fillcolor=translucent(colour, 0.15), line={"width": 0}, mode="lines", hoverinfo="skip",
            showlegend=False,
        )  # fmt: skip
        figure.add_scatter(
            x=x, y=history[column].to_numpy(), name=name, mode="lines+markers",
            line={"color": colour, "width": 2},
            hovertemplate=f"{name} after %{{x}} pairs: %{{y:.3f}}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title_text="pairs audited")
    figure.update_yaxes(title_text="share of pairs", range=[-0.03, 1.03])
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    return figure_with_title(figure, title, height=380, top=84)
