"""Corrections for PUNISH pairs: written, gated, verified by somebody else, compared (method.md, 6)."""

from realignment.corrections.candidates import (
    check_origin,
    choose_pairs,
    instruction_digest,
    people_candidates,
    write_candidates,
)
from realignment.corrections.leakage import measure_leakage
from realignment.corrections.quality import Gate, assess
from realignment.corrections.selection import choose, correct, report, verify
from realignment.corrections.verification import draw_for_people, measure_verifier
from realignment.corrections.writers import appoint_writer

__all__ = [
    "Gate",
    "appoint_writer",
    "assess",
    "check_origin",
    "choose",
    "choose_pairs",
    "correct",
    "draw_for_people",
    "instruction_digest",
    "measure_leakage",
    "measure_verifier",
    "people_candidates",
    "report",
    "verify",
    "write_candidates",
]
