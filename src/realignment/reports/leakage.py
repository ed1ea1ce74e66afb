"""Draw the figure of value leakage: how far a machine's corrections are from those of people."""

from itertools import cycle

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from realignment.reports.style import DISPREFERRED, NEUTRAL, PREFERRED, empty_figure, figure_with_title

PANELS = {
    "share": ("Agreement and rules broken: difference of shares", "difference"),
    "manner": ("Length and style: difference in standard deviations", "effect"),
}
_COLOURS = (PREFERRED, DISPREFERRED, NEUTRAL)


def draw_correction_leakage(table: pd.DataFrame) -> go.Figure:
    """Draw dots with 95 % whiskers, machine − people: policy left, manner right; 0 is no leakage.

    A side without rows, such as the manner of a machine whose candidates all fail, is left out.

    Args:
        table: `correction_leakage`.

    Returns:
        The figure.
    """
    title = "Corrections by writer, against those of people"
    panels = {
        "share": table[table["unit"] == "share"],
        "manner": table[table["group"].str.startswith(("length", "style")) & table["effect"].notna()],
    }
    panels = {panel: rows for panel, rows in panels.items() if len(rows)}
    if not panels:
        return empty_figure(title, "No pairs have corrections by people and by a machine to compare.")
    figure = make_subplots(
        rows=1, cols=len(panels), horizontal_spacing=0.22, subplot_titles=[PANELS[p][0] for p in panels]
    )
    colours = dict(zip(map(str, table["writer"].unique()), cycle(_COLOURS), strict=False))
    for col, (panel, rows) in enumerate(panels.items(), start=1):
        for writer, part in rows.groupby("writer", sort=False):
            dots = _dots(part, PANELS[panel][1])
            legend = {"name": str(writer), "legendgroup": str(writer), "showlegend": col == 1}
            dots.update(marker={"size": 10, "color": colours[str(writer)]}, **legend)
            figure.add_trace(dots, row=1, col=col)
        figure.add_vline(x=0, row=1, col=col)
        figure.update_yaxes(autorange="reversed", row=1, col=col)
    longest = max(map(len, panels.values()))
    return figure_with_title(figure, title, height=max(260, 130 + 26 * longest), top=80)


def _dots(part: pd.DataFrame, column: str) -> go.Scatter:
    """One dot per row with its whiskers, in the units of the column."""
    low, high = ("low", "high") if column == "difference" else ("effect_low", "effect_high")
    return go.Scatter(
        x=part[column].to_numpy(),
        y=(part["group"] + ": " + part["metric"]).tolist(),
        error_x={
            "type": "data",
            "symmetric": False,
            "array": (part[high] - part[column]).to_numpy(),
            "arrayminus": (part[column] - part[low]).to_numpy(),
            "width": 0,
            "thickness": 2,
        },
        customdata=part[["people", "value", "unit", "n_people", "n_writer"]].to_numpy(),
        hovertemplate="%{y}<br>people %{customdata[0]:.3g}, machine %{customdata[1]:.3g} %{customdata[2]}"
        "<br>n = %{customdata[3]} and %{customdata[4]}",
        mode="markers",
    )
