"""Corrections for PUNISH pairs: written, checked for quality, verified, compared (method.md, 6)."""

from realignment.corrections.candidates import (
    check_origin,
    choose_pairs_to_correct,
    collect_people_candidates,
    digest_instruction,
    write_candidates,
)
from realignment.corrections.leakage import measure_leakage
from realignment.corrections.quality import QualityGate, assess_quality
from realignment.corrections.selection import (
    apply_corrections,
    choose_corrections,
    report_corrections,
    verify_candidates,
)
from realignment.corrections.verification import measure_verifier, sample_for_review
from realignment.corrections.writers import build_writer

__all__ = [
    "QualityGate",
    "apply_corrections",
    "assess_quality",
    "build_writer",
    "check_origin",
    "choose_corrections",
    "choose_pairs_to_correct",
    "collect_people_candidates",
    "digest_instruction",
    "measure_leakage",
    "measure_verifier",
    "report_corrections",
    "sample_for_review",
    "verify_candidates",
    "write_candidates",
]
