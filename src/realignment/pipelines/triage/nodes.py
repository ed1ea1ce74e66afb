"""Nodes of the stage `triage`."""

import logging
from typing import Any

import pandas as pd

from realignment import triage
from realignment.parameters import TriageParameters
from realignment.records import Disposition
from realignment.tracking import lineage

logger = logging.getLogger(__name__)


def triage_pairs(
    pairs: pd.DataFrame,
    judgments: pd.DataFrame,
    judging_manifest: dict[str, Any],
    parameters: TriageParameters,
) -> tuple[pd.DataFrame | dict[str, Any], ...]:
    """Give every pair the disposition that its two judgments imply, and split by it."""
    inputs = {"pairs": pairs, "judgments": judgments}
    lineage.check_tables(judging_manifest, inputs)
    triaged = triage.triage(pairs, judgments, min_confidence=parameters.min_confidence)
    splits = {f"{d.lower()}_pairs": table for d, table in triage.split_by_disposition(triaged).items()}
    facts = lineage.inherited_facts(judging_manifest)
    manifest = lineage.build_manifest("triage", inputs=inputs, outputs=splits, **facts)
    return (*(splits[f"{d.lower()}_pairs"] for d in Disposition), manifest)


def report_triage(
    invert_pairs: pd.DataFrame,
    punish_pairs: pd.DataFrame,
    retain_pairs: pd.DataFrame,
    review_pairs: pd.DataFrame,
    parameters: TriageParameters,
) -> dict[str, Any]:
    """Report how many pairs went where, and why."""
    triaged = pd.concat([invert_pairs, punish_pairs, retain_pairs, review_pairs], ignore_index=True)
    report = triage.report_triage(triaged, max_punish_share=parameters.max_punish_share)
    log_triage(report)
    return report


def log_triage(report: dict[str, Any]) -> None:
    """Log how many pairs went where, and every warning."""
    logger.info("Triage: %s", ", ".join(f"{count} {name}" for name, count in report["counts"].items()))
    for warning in report["warnings"]:
        logger.warning(warning)
