"""The common style of all figures: colours that colour-blind people can tell apart, in light and in dark."""

import plotly.graph_objects as go

from realignment.records import Disposition

DISPOSITION_COLOURS = {
    Disposition.INVERT: "#0072B2",
    Disposition.PUNISH: "#D55E00",
    Disposition.RETAIN: "#009E73",
    Disposition.REVIEW: "#CC79A7",
}
"""One colour per disposition, everywhere (Okabe & Ito 2008, Color Universal Design)."""

PREFERRED, DISPREFERRED = "#56B4E9", "#E69F00"
"""Sky blue and orange of the same palette: the two responses of a pair."""

NEUTRAL = "#8A8F98"
"""Grey that reads on white and on the dark page: what is not a disposition."""

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

TITLE_HEIGHT = 36
"""Pixels that a figure keeps above its plot for the title; the page has headings instead."""


def _template(*, ink: str, quiet: str, grid: str, paper: str) -> go.layout.Template:
    axis = {
        "automargin": True,
        "gridcolor": grid,
        "linecolor": quiet,
        "tickcolor": quiet,
        "ticks": "outside",
        "ticklen": 4,
        "showline": True,
        "zeroline": False,
        "title": {"font": {"size": 13}, "standoff": 10},
        "tickfont": {"size": 13},
    }
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 13, "color": ink},
            "title": {
                "font": {"size": 16},
                "x": 0,
                "xref": "container",
                "xanchor": "left",
                "yref": "container",
            },
            # The first colour is "before", the second "after": ink on paper, whichever the paper is.
            "colorway": [NEUTRAL, ink],
            "paper_bgcolor": paper,
            "plot_bgcolor": paper,
            "hoverlabel": {"font": {"family": FONT, "size": 13}},
            "legend": {"font": {"size": 13}, "bgcolor": "rgba(0,0,0,0)"},
            "annotationdefaults": {"font": {"size": 14}},
            "shapedefaults": {"line": {"color": quiet, "width": 1, "dash": "dot"}},
            "xaxis": axis,
            "yaxis": axis,
        }
    )


LIGHT = _template(ink="#1F2328", quiet="#8A8F98", grid="#ECEEF1", paper="#FFFFFF")
DARK = _template(ink="#E6E8EB", quiet="#8A8F98", grid="#2B3037", paper="#181B20")


def figure_with_title(figure: go.Figure, title: str, *, height: int, top: int = 56) -> go.Figure:
    """Give a figure the common template, a title, its height and the room above the plot.

    Args:
        figure: The figure, which is changed.
        title: The title.
        height: Height of the whole figure, in pixels.
        top: Room above the plot, in pixels.

    Returns:
        The same figure.
    """
    figure.update_layout(
        template=LIGHT,
        title={"text": title, "y": 1, "yanchor": "top", "pad": {"t": 14, "l": 12}},
        height=height,
        margin={"l": 60, "r": 24, "t": top, "b": 56},
    )
    return figure


def empty_figure(title: str, reason: str) -> go.Figure:
    """Draw a figure that says why it shows nothing."""
    figure = go.Figure()
    figure.add_annotation(text=reason, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    figure.update_xaxes(visible=False).update_yaxes(visible=False)
    return figure_with_title(figure, title, height=220)


def translucent(colour: str, opacity: float) -> str:
    """Convert `#RRGGBB` and an opacity to `rgba()`, for the bands of a flow."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
