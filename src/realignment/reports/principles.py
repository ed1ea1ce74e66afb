"""Draw the figure of an inferred policy: how often each principle applies, and how often it is right."""

from html import escape

import pandas as pd
import plotly.graph_objects as go

from realignment.reports.style import PREFERRED, empty_figure, figure_with_title


def draw_principles(table: pd.DataFrame) -> go.Figure:
    """Draw dots with 95 % whiskers, one per principle; the larger the dot, the more pairs it applies to.

    Args:
        table: `principles`.

    Returns:
        The figure.
    """
    title = "Principles that explain the choices: share of choices predicted, with 95 % intervals"
    if table.empty:
        return empty_figure(title, "No principle explains the choices better than chance.")
    labels = [
        f"{escape(text)}  ({share:.0%} of pairs)"
        for text, share in zip(table["principle"], table["support"], strict=True)
    ]
    figure = go.Figure()
    figure.add_scatter(
        x=table["agreement"].to_numpy(),
        y=labels,
        error_x={
            "type": "data",
            "symmetric": False,
            "array": (table["high"] - table["agreement"]).to_numpy(),
            "arrayminus": (table["agreement"] - table["low"]).to_numpy(),
            "width": 0,
            "thickness": 2,
        },
        mode="markers",
        marker={"size": (8 + 16 * table["support"]).to_numpy(), "color": PREFERRED},
        hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        showlegend=False,
    )
    figure.add_vline(x=0.5)  # chance
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(title_text="share of choices predicted", tickformat=".0%", range=[0.3, 1.02])
    return figure_with_title(figure, title, height=130 + 40 * len(table))
