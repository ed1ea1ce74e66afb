"""Draw the figures of a run from its tables; they show numbers that a stage has computed, and add none."""

from collections import Counter
from collections.abc import Mapping
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from realignment.records import CONFLICTS, Disposition
from realignment.reports.style import (
    DISPOSITION_COLOURS,
    DISPREFERRED,
    NEUTRAL,
    PREFERRED,
    empty_figure,
    figure_with_title,
    translucent,
)

_INVERT, _PUNISH, _RETAIN = (
    DISPOSITION_COLOURS[d] for d in (Disposition.INVERT, Disposition.PUNISH, Disposition.RETAIN)
)

LOSSES = {
    "loss": ("total", NEUTRAL),
    "invert_loss": ("INVERT", _INVERT),
    "punish_loss": ("PUNISH", _PUNISH),
    "retain_loss": ("RETAIN", _RETAIN),
}
LOGRATIOS = {
    "logratio_preferred": ("preferred", PREFERRED),
    "logratio_dispreferred": ("dispreferred", DISPREFERRED),
    "logratio_retained": ("retained", _RETAIN),
}
DRIFT = {"retain_kl": ("RETAIN", _RETAIN)}
PANELS = {
    "loss": LOSSES,
    "log-ratio to the reference (nats)": LOGRATIOS,
    "KL to the reference (nats/token)": DRIFT,
}
"""Axis title → column of the training history → (name, colour) of its line."""


def draw_triage_flow(
    triaged: pd.DataFrame, destinations: Mapping[str, Mapping[str, int]] | None = None
) -> go.Figure:
    """Draw how many pairs went where and why: all → verdicts on both responses → disposition → destination.

    Args:
        triaged: One row per pair with `disposition`, `chosen_verdict`, `rejected_verdict` (bool or null).
        destinations: Pairs per disposition for "held out", "gold", "training"; left out, the flow ends at the
            dispositions. Pairs that no destination counts (REVIEW) end there too.

    Returns:
        A Sankey diagram whose labels carry the counts.
    """
    title = "How many pairs went where, and why"
    if triaged.empty:
        return empty_figure(title, "There are no pairs to show.")
    # Pairs by (verdicts on both responses, disposition), and by verdicts alone.
    counts: Counter[tuple[str, str]] = Counter()
    verdict_counts: Counter[str] = Counter()
    columns = [triaged[name] for name in ("chosen_verdict", "rejected_verdict", "disposition")]
    for chosen, rejected, disposition in zip(*columns, strict=True):
        verdicts = f"chosen {_verdict(chosen)}<br>rejected {_verdict(rejected)}"
        counts[verdicts, str(disposition)] += 1
        verdict_counts[verdicts] += 1
    links = [("all pairs", verdicts, n) for verdicts, n in verdict_counts.most_common()]
    links += [(verdicts, disposition, n) for (verdicts, disposition), n in counts.most_common()]
    for name, per_disposition in (destinations or {}).items():
        links += [(str(disposition), name, int(n)) for disposition, n in per_disposition.items() if n]
    figure = figure_with_title(go.Figure(_sankey(links)), title, height=480)
    return figure.update_layout(margin={"l": 12, "r": 12, "b": 24})


def _verdict(complies: Any) -> str:
    if pd.isna(complies):
        return "unscored"
    return "complies" if complies else "violates"


def _sankey(links: list[tuple[str, str, int]]) -> go.Sankey:
    """The diagram of (source, target, pairs); a node's label carries the pairs that arrive at it."""
    pairs_at: Counter[str] = Counter()  # in the order of first occurrence, which is that of the nodes
    for source, target, n in links:
        pairs_at[source] += n if source == "all pairs" else 0
        pairs_at[target] += n
    names = list(pairs_at)
    colours: dict[str, str] = {str(d): colour for d, colour in DISPOSITION_COLOURS.items()}
    bands = [colours.get(target, colours.get(source, NEUTRAL)) for source, target, _ in links]
    return go.Sankey(
        arrangement="snap",
        node={
            "label": [
                f"{escape(name).replace('&lt;br&gt;', '<br>')}  <b>{n:,}</b>" for name, n in pairs_at.items()
            ],
            "color": [colours.get(name, NEUTRAL) for name in names],
            "line": {"width": 0},
            "pad": 34,
            "thickness": 14,
            "align": "left",
            "hovertemplate": "%{label}<extra></extra>",
        },
        link={
            "source": [names.index(source) for source, _, _ in links],
            "target": [names.index(target) for _, target, _ in links],
            "value": [n for _, _, n in links],
            "color": [translucent(colour, 0.35) for colour in bands],
            "hovertemplate": "%{value:,} pairs<extra></extra>",
        },
        valueformat=",",
        textfont={"size": 13},
    )


def draw_impact_weights(weights: pd.DataFrame) -> go.Figure:
    """Draw the distribution of impact scores and of their weights, one row of panels per disposition.

    Args:
        weights: The table `impact_weights` (pair_id, disposition, score, weight …), one row per scored pair.

    Returns:
        Histograms of scores on the left, of weights on the right.
    """
    title = "What each conflict pair counts for in training"
    present = [d for d in CONFLICTS if (weights.get("disposition", pd.Series(dtype=str)) == d).any()]
    if not present:
        return empty_figure(title, "No conflict pairs were scored.")
    figure = make_subplots(rows=len(present), cols=2, vertical_spacing=0.2, horizontal_spacing=0.1)
    panels = (("score", "impact score"), ("weight", "weight (mean 1)"))
    for row, disposition in enumerate(present, start=1):
        rows = weights[weights["disposition"] == disposition]
        for col, (column, label) in enumerate(panels, start=1):
            figure.add_histogram(
                x=rows[column].to_numpy(),
                nbinsx=30,
                name=str(disposition),
                marker={"color": DISPOSITION_COLOURS[disposition], "line": {"width": 0}},
                hovertemplate=f"{label} %{{x}}<br>%{{y}} pairs<extra>{disposition}</extra>",
                row=row,
                col=col,
            )
            # Uniform weights are taken without a score.
            text = f"{disposition}: {label}" if rows[column].notna().any() else f"{disposition}: no scores"
            figure.update_xaxes(title_text=text, row=row, col=col)
            figure.add_vline(x=col - 1, row=row, col=col)  # score 0, weight 1: a pair of no special impact
        figure.update_yaxes(title_text="pairs", row=row, col=1)
    figure.update_layout(showlegend=False, bargap=0.06)
    return figure_with_title(figure, title, height=90 + 220 * len(present), top=60)


def draw_training_curves(history: pd.DataFrame) -> go.Figure:
    """Draw losses, log-ratios of the three kinds of response, and drift over the training steps.

    Args:
        history: The table `training_history`; columns that are missing or all null are left out.

    Returns:
        Three panels side by side.
    """
    title = "Training: losses, log-ratios and drift"
    if history.empty:
        return empty_figure(title, "No training steps were recorded.")
    figure = make_subplots(rows=1, cols=3, horizontal_spacing=0.09)
    for col, (label, series) in enumerate(PANELS.items(), start=1):
        legend = "legend" if col == 1 else f"legend{col}"
        for column, (name, colour) in series.items():
            if column in history and history[column].notna().any():
                figure.add_scatter(
                    x=history["step"].to_numpy(),
                    y=history[column].to_numpy(),
                    mode="lines+markers" if len(history) < 20 else "lines",
                    name=name,
                    legend=legend,
                    line={"color": colour, "width": 2},
                    hovertemplate=f"step %{{x}}: %{{y:.3f}}<extra>{name}</extra>",
                    row=1,
                    col=col,
                )
        figure.update_xaxes(title_text="training step", row=1, col=col)
        figure.update_yaxes(title_text=label, row=1, col=col)
        # Each panel has a legend of its own, above its left edge.
        left = figure.layout["xaxis" if col == 1 else f"xaxis{col}"].domain[0]
        position = {"orientation": "h", "x": left, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
        figure.update_layout({legend: position})
    figure.add_hline(y=0, row=1, col=2)
    return figure_with_title(figure.update_layout(showlegend=True), title, height=380, top=86)
