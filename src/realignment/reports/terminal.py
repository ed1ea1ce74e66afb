"""Render the table that ends a run in the terminal: plain text, nothing that a logger reads as markup."""

import textwrap
from collections.abc import Mapping
from typing import Any

import pandas as pd

from realignment.reports.agreement import sort_groups
from realignment.reports.formats import MISSING, difference, interval, name_of, number, quantity
from realignment.reports.sections import records

WIDTH = 100
_HEADER = ("", "before", "after", "difference", "95 % interval", "n")
_WIDTHS = (38, 9, 9, 11, 18, 7)
_HEADLINES = ("agreement", "over_refusal", "capability")


def render_summary_table(summary: Mapping[str, Any], table: pd.DataFrame) -> str:
    """Render agreement, over-refusal and capability before and after, then each group; the gate; the model.

    Args:
        summary: The run's `summary`; a headline that was not measured may be null or missing.
        table: The `evaluation_table`, may be empty.

    Returns:
        Lines of at most 100 characters, without a final newline.
    """
    rule = "-" * sum(_WIDTHS)
    lines = [_line(_HEADER), rule]
    lines += [_headline(metric, summary.get(metric)) for metric in _HEADLINES]
    groups = _groups(table)
    if groups:
        lines += [rule, *groups]
    lines += [rule, *_gate(summary.get("gate") or {}), *_model(summary.get("model") or {})]
    return "\n".join(lines)


def _line(cells: tuple[str, ...]) -> str:
    first, *rest = cells
    first = textwrap.shorten(first, _WIDTHS[0], placeholder="...") if len(first) > _WIDTHS[0] else first
    line = first.ljust(_WIDTHS[0]) + "".join(c.rjust(w) for c, w in zip(rest, _WIDTHS[1:], strict=True))
    return line.rstrip()


def _headline(metric: str, figures: Mapping[str, Any] | None) -> str:
    name = name_of(metric)
    if not figures:
        return _line((f"{name} (not measured)", *[MISSING] * 5))
    source = f"worst task: {figures['task']}" if figures.get("task") else figures.get("judge")
    lines = [_figure_line(f"{name} ({source})" if source else name, metric, figures)]
    if figures.get("corrected"):
        lines.append(_figure_line("  without the judge's errors", metric, figures["corrected"]))
    return "\n".join(lines)


def _figure_line(name: str, metric: str, figures: Mapping[str, Any]) -> str:
    low, high = figures.get("interval") or (None, None)
    return _cells(name, metric, figures, low, high)


def _cells(name: str, metric: str, values: Mapping[str, Any], low: Any, high: Any) -> str:
    cells = (
        name,
        quantity(metric, values.get("before")),
        quantity(metric, values.get("after")),
        difference(metric, values.get("difference")),
        interval(metric, low, high, signed=True),
        number(values.get("n")),
    )
    return _line(cells)


def _groups(table: pd.DataFrame) -> list[str]:
    if table.empty:
        return []
    lines = []
    for metric in _HEADLINES:
        rows = table[table["metric"] == metric]
        for group in sort_groups(rows["group"]):
            for values in records(rows[rows["group"].astype(str) == group]):
                judge = f" ({values['judge']})" if values["judge"] else ""
                name = f"{name_of(metric)}, {name_of(group)}{judge}"
                lines.append(
                    _cells(name, metric, values, values["difference_low"], values["difference_high"])
                )
    return lines


def _gate(gate: Mapping[str, Any]) -> list[str]:
    if not gate:
        return _wrapped("gate", "did not run")
    lines = _wrapped("gate", "passed" if gate["passed"] else "FAILED")
    for reason in gate.get("reasons", []):
        lines += _wrapped("", f"- {reason}")
    return lines


def _model(model: Mapping[str, Any]) -> list[str]:
    if not model.get("name"):
        return _wrapped("model", "not registered")
    version = f" version {model['version']}" if model.get("version") else ""
    lines = _wrapped("model", f"{model['name']}{version}")
    if model.get("uri"):
        lines += _wrapped("", model["uri"])
    return lines


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(str(text), WIDTH, initial_indent=label.ljust(8), subsequent_indent=" " * 10)
