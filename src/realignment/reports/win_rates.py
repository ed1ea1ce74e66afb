"""Turn the report of blind comparisons into the win-rate matrix that the page shows."""

from collections.abc import Mapping, Sequence
from typing import Any

from realignment.reports import formats
from realignment.reports.before_after import HEADLINES


def win_rate_section(report: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what the page shows of the comparisons.

    Args:
        report: `win_rates`.

    Returns:
        judge, models, blocks (one matrix per group of prompts) and notes; None where nobody compared.
    """
    if not report or not report["comparisons"]:
        return None
    groups = report["groups"]
    names = sorted(groups, key=lambda name: HEADLINES.index(name) if name in HEADLINES else len(HEADLINES))
    return {
        "judge": report["judge"],
        "models": report["models"],
        "blocks": [_block(name, groups[name], report["models"]) for name in names],
        "notes": _describe_trust(report),
    }


def _block(name: str, group: Mapping[str, Any], models: Sequence[str]) -> dict[str, Any]:
    """The matrix of one group: a line per model, with a cell per opponent and its strength."""
    lines = []
    for model in models:
        rates = group["win_rates"][model]
        cells = [None if opponent == model else _cell(rates.get(opponent)) for opponent in models]
        strength = group["strengths"][model]
        lines.append(
            {
                "model": model,
                "cells": cells,
                "rank": strength["rank"],
                "strength": formats.number(strength["strength"]),
                "interval": formats.interval("", strength["low"], strength["high"]),
            }
        )
    return {"group": name, "lines": lines}


def _cell(figures: Mapping[str, Any] | None) -> dict[str, Any]:
    """One model against another; `clear` where the interval does not contain one half."""
    if figures is None:
        return {"rate": formats.MISSING, "interval": "", "counts": "", "clear": False}
    low, high = figures["low"], figures["high"]
    counts = [(figures[name], name) for name in ("wins", "ties", "losses")]
    return {
        "rate": formats.share(figures["win_rate"]),
        "interval": formats.interval("win_rate", low, high),
        "counts": ", ".join(f"{formats.number(n)} {name}" for n, name in counts),
        "clear": not formats.is_missing(low) and (low > 0.5 or high < 0.5),
    }


def _describe_trust(report: Mapping[str, Any]) -> list[str]:
    """Sentences on what the comparisons cannot tell."""
    notes = []
    bias = report["position_bias"]
    if bias is not None:
        bounds = formats.interval("win_rate", bias["low"], bias["high"])
        notes.append(
            f"The answer shown first won {formats.share(bias['share'])} of the verdicts for one of two "
            f"answers (95 % interval {bounds}); without a bias it is a half."
        )
    if report["order_disagreements"] is not None:
        notes.append(
            f"{formats.number(report['order_disagreements'])} comparisons had another winner in the other "
            "order, and count as ties."
        )
    if report["unscored"]:
        reasons = "; ".join(f"{reason['reason']} ({reason['n']})" for reason in report["unscored_reasons"])
        notes.append(
            f"{formats.number(report['unscored'])} comparisons have no verdict and are left out: {reasons}."
        )
    return notes
