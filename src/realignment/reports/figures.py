"""Figures of a run, from its tables. They show numbers that a stage has computed, and add none."""

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


def triage_flow(
    triaged: pd.DataFrame, destinations: Mapping[str, Mapping[str, int]] | None = None
) -> go.Figure:
    """How many pairs went where and why: all → verdicts on both responses → disposition → destination.

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
    columns = (triaged[name] for name in ("chosen_verdict", "rejected_verdict", "disposition"))
    counts = Counter(
        (f"chosen {_verdict(chosen)}<br>rejected {_verdict(rejected)}", str(disposition))
        for chosen, rejected, disposition in zip(*columns, strict=True)
    )
    reasons: Counter[str] = Counter()
    for (verdicts, _), n in counts.items():
        reasons[verdicts] += n
    links = [("all pairs", verdicts, n) for verdicts, n in reasons.most_common()]
    links += [(verdicts, disposition, n) for (verdicts, disposition), n in counts.most_common()]
    for name, per_disposition in (destinations or {}).items():
        links += [(str(disposition), name, int(n)) for disposition, n in per_disposition.items() if n]
    figure = figure_with_title(go.Figure(_sankey(links)), title, height=480)
    return figure.update_layout(margin={"l": 12, "r": 12, "b": 24})


def _verdict(complies: Any) -> str:
    return "unscored" if pd.isna(complies) else "complies" if complies else "violates"


def _sankey(links: list[tuple[str, str, int]]) -> go.Sankey:
    names = list(dict.fromkeys(name for source, target, _ in links for name in (source, target)))
    colours: dict[str, str] = {str(d): colour for d, colour in DISPOSITION_COLOURS.items()}
    arriving = {name: sum(n for _, target, n in links if target == name) for name in names}
    arriving["all pairs"] = sum(n for source, _, n in links if source == "all pairs")
    bands = [colours.get(target, colours.get(source, NEUTRAL)) for source, target, _ in links]
    return go.Sankey(
        arrangement="snap",
        node={
            "label": [
                f"{escape(name).replace('&lt;br&gt;', '<br>')}  <b>{arriving[name]:,}</b>" for name in names
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


def impact_weights(weights: pd.DataFrame) -> go.Figure:
    """Distribution of impact scores and of the weights made of them, one row of panels per disposition.

    Args:
        weights: The table `impact_weights` (pair_id, disposition, score, weight …), one row per scored pair.
    """
    title = "What each conflict pair counts for in training"
    present = [d for d in CONFLICTS if (weights.get("disposition", pd.Series(dtype=str)) == d).any()]
    if not present:
        return empty_figure(title, "No conflict pairs were scored.")
    figure = make_subplots(rows=len(present), cols=2, vertical_spacing=0.2, horizontal_spacing=0.1)
    for row, disposition in enumerate(present, start=1):
        rows = weights[weights["disposition"] == disposition]
        for col, (column, label) in enumerate(
            (("score", "impact score"), ("weight", "weight (mean 1)")), start=1
        ):
            figure.add_histogram(
                x=rows[column].to_numpy(),
                nbinsx=30,
                name=str(disposition),
                marker={"color": DISPOSITION_COLOURS[disposition], "line": {"width": 0}},
                hovertemplate=f"{label} %{{x}}<br>%{{y}} pairs<extra>{disposition}</extra>",
                row=row,
                col=col,
            )
            figure.update_xaxes(title_text=f"{disposition}: {label}", row=row, col=col)
            figure.add_vline(x=col - 1, row=row, col=col)
        figure.update_yaxes(title_text="pairs", row=row, col=1)
    figure.update_layout(showlegend=False, bargap=0.06)
    return figure_with_title(figure, title, height=90 + 220 * len(present), top=60)


def training_curves(history: pd.DataFrame) -> go.Figure:
    """Losses, log-ratios of the three kinds of response, and drift, side by side over the training steps.

    Args:
        history: The table `training_history`; columns that are missing or all null are left out.
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
        left = figure.layout["xaxis" if col == 1 else f"xaxis{col}"].domain[0]
        placed = {"orientation": "h", "x": left, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
        figure.update_layout({legend: placed})
    figure.add_hline(y=0, row=1, col=2)
    return figure_with_title(figure.update_layout(showlegend=True), title, height=380, top=86)
