"""The figure of value leakage: how far a machine's corrections are from those of people."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from realignment.reports.style import DISPREFERRED, NEUTRAL, PREFERRED, empty_figure, figure_with_title

PANELS = {
    "share": ("Agreement and rules broken: difference of shares", "difference"),
    "manner": ("Length and style: difference in standard deviations", "effect"),
}
_COLOURS = (PREFERRED, DISPREFERRED, NEUTRAL)


def correction_leakage(table: pd.DataFrame) -> go.Figure:
    """Dots with 95 % whiskers, machine − people: policy on the left, manner on the right; 0 is no leakage.

    Args:
        table: `correction_leakage`.
    """
    title = "Corrections by writer, against those of people"
    if table.empty:
        return empty_figure(title, "No pairs have corrections by people and by a machine to compare.")
    panels = {
        "share": table[table["unit"] == "share"],
        "manner": table[table["group"].str.startswith(("length", "style")) & table["effect"].notna()],
    }
    figure = make_subplots(
        rows=1, cols=2, horizontal_spacing=0.22, subplot_titles=[p[0] for p in PANELS.values()]
    )
    for col, (panel, rows) in enumerate(panels.items(), start=1):
        for colour, (writer, part) in zip(_COLOURS, rows.groupby("writer", sort=False), strict=False):
            dots = _dots(part, PANELS[panel][1])
            legend = {"name": str(writer), "legendgroup": str(writer), "showlegend": col == 1}
            figure.add_trace(dots.update(marker={"size": 10, "color": colour}, **legend), row=1, col=col)
        figure.add_vline(x=0, row=1, col=col)
        figure.update_yaxes(autorange="reversed", row=1, col=col)
    longest = max(map(len, panels.values()))
    return figure_with_title(figure, title, height=max(260, 130 + 26 * longest), top=80)


def _dots(part: pd.DataFrame, column: str) -> go.Scatter:
    """One dot a row with its whiskers, in the units of the column."""
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
