"""Draw the figure that answers the question of a run: agreement and over-refusal, before and after."""

import pandas as pd
import plotly.graph_objects as go

from realignment.reports.before_after import HEADLINES, Panel, draw_panels
from realignment.reports.style import empty_figure

PANELS = {
    "agreement": ("Agreement with the new policy", "share that complies"),
    "over_refusal": (
        "Over-refusal: the policy applied where it does not apply",
        "share that applies the policy",
    ),
}
"""Metric → heading, and what its shares are of."""

_KINDS = ("domain", "kind", "origin")


def draw_agreement(table: pd.DataFrame) -> go.Figure:
    """Draw dots with 95 % whiskers before and after, headline groups first; one column of panels per judge.

    Args:
        table: The `evaluation_table`; its rows of agreement and over-refusal are drawn.

    Returns:
        The figure.
    """
    title = "Agreement and over-refusal, before and after, with 95 % intervals"
    panels = []
    for metric, (heading, axis) in PANELS.items():
        rows = table[table["metric"] == metric] if "metric" in table else table
        if len(rows):
            panels.append(Panel(heading, axis, rows, sort_groups(rows["group"])))
    return draw_panels(title, panels) if panels else empty_figure(title, "No responses were judged.")


def sort_groups(groups: pd.Series) -> list[str]:
    """Sort groups: headline groups first, then domains, kinds and origins, each in the table's order."""
    names = list(dict.fromkeys(map(str, groups)))
    ranks = {kind: rank for rank, kind in enumerate(_KINDS)}
    return sorted(
        names, key=lambda name: (name not in HEADLINES, ranks.get(name.partition(":")[0], len(ranks)))
    )
