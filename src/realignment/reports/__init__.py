"""Show a run's results as figures, page and closing table; nothing new is computed here."""

from realignment.reports.agreement import draw_agreement
from realignment.reports.attacks import draw_attacks
from realignment.reports.figures import draw_impact_weights, draw_training_curves, draw_triage_flow
from realignment.reports.leakage import draw_correction_leakage
from realignment.reports.page import RunResults, make_environment, render_report
from realignment.reports.principles import draw_principles
from realignment.reports.sections import pick_answers
from realignment.reports.terminal import render_summary_table

__all__ = [
    "RunResults",
    "draw_agreement",
    "draw_attacks",
    "draw_correction_leakage",
    "draw_impact_weights",
    "draw_principles",
    "draw_training_curves",
    "draw_triage_flow",
    "make_environment",
    "pick_answers",
    "render_report",
    "render_summary_table",
]
