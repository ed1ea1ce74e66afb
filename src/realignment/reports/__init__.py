"""Figures, the page and the closing table of a run, from its results; nothing new is computed here."""

from realignment.reports.agreement import agreement_before_after
from realignment.reports.figures import impact_weights, training_curves, triage_flow
from realignment.reports.leakage import correction_leakage
from realignment.reports.page import RunResults, render_report
from realignment.reports.principles import principles
from realignment.reports.sections import pick_answers
from realignment.reports.terminal import render_summary_table

__all__ = [
    "RunResults",
    "agreement_before_after",
    "correction_leakage",
    "impact_weights",
    "pick_answers",
    "principles",
    "render_report",
    "render_summary_table",
    "training_curves",
    "triage_flow",
]
