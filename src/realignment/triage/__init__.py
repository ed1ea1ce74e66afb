"""Triage: two judgments make a disposition; every pair gets exactly one (method.md, section 3)."""

from realignment.triage.dispositions import (
    check_triage,
    count_pairs,
    decide_disposition,
    report_counts,
    report_triage,
    split_by_disposition,
    triage,
)

__all__ = [
    "check_triage",
    "count_pairs",
    "decide_disposition",
    "report_counts",
    "report_triage",
    "split_by_disposition",
    "triage",
]
