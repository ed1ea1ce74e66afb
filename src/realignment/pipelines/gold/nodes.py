"""Nodes of the stage `gold`."""

import logging
from collections import Counter
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from realignment import triage
from realignment.audit import calibration, consequences
from realignment.gold.batch import partition
from realignment.parameters import AuditParameters, GoldParameters
from realignment.records import Disposition, NothingToDo
from realignment.tracking import lineage

logger = logging.getLogger(__name__)


def draw_gold_batch(
    invert_pairs: pd.DataFrame,
    corrected_pairs: pd.DataFrame,
    retain_pairs: pd.DataFrame,
    corrections_manifest: dict[str, Any],
    triage_manifest: dict[str, Any],
    oracle_report: dict[str, Any],
    audit_report: dict[str, Any],
    audit: AuditParameters,
    parameters: GoldParameters,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Set held-out pairs and the gold batch aside; the rest is trained on."""
    splits = {"invert_pairs": invert_pairs, "corrected_pairs": corrected_pairs, "retain_pairs": retain_pairs}
    lineage.check(corrections_manifest, splits)
    # What is known of the oracle is known of these splits: an audit of other ones must not count.
    lineage.check(triage_manifest, {"invert_pairs": invert_pairs, "retain_pairs": retain_pairs})
    counts = dict.fromkeys(map(str, Disposition), 0)
    counts |= dict(zip(("INVERT", "PUNISH", "RETAIN"), map(len, splits.values()), strict=True))
    triage.check_triage(counts)
    limit = audit.max_misrouted
    audited = consequences.check_misrouting(triage_manifest, oracle_report, audit_report, limit=limit)
    if not counts[Disposition.INVERT] + counts[Disposition.PUNISH]:
        raise NothingToDo(
            f"All {counts[Disposition.RETAIN]} judged pairs already comply with policy version "
            f"{corrections_manifest['policy_version']}: there is nothing to re-align."
        )
    triaged = pd.concat(splits.values(), ignore_index=True)
    if audited:
        triaged["error_rate"] = calibration.error_rates(triaged, audit_report["error_rates"])
    parts = partition(
        triaged,
        held_out_share=parameters.held_out_share,
        gold_size=parameters.size,
        composition=parameters.composition,
        seed=seed,
    )
    outputs = {"held_out_pairs": parts.held_out, "gold_batch": parts.gold, "training_pairs": parts.training}
    facts = {key: corrections_manifest[key] for key in ("policy", "policy_version", "oracle")}
    manifest = lineage.seal("gold", inputs=splits, outputs=outputs, seed=seed, **facts)
    logger.info(", ".join(f"{len(table)} {name.replace('_', ' ')}" for name, table in outputs.items()))
    return parts.held_out, parts.gold, parts.training, manifest


def draw_triage_flow(
    invert_pairs: pd.DataFrame,
    punish_pairs: pd.DataFrame,
    retain_pairs: pd.DataFrame,
    review_pairs: pd.DataFrame,
    held_out_pairs: pd.DataFrame,
    gold_batch: pd.DataFrame,
    training_pairs: pd.DataFrame,
) -> go.Figure:
    """The way of every pair, from its two verdicts to what it is used for."""
    from realignment import reports

    triaged = pd.concat([invert_pairs, punish_pairs, retain_pairs, review_pairs], ignore_index=True)
    parts = {"held out": held_out_pairs, "gold": gold_batch, "training": training_pairs}
    destinations = {name: Counter(map(str, part["disposition"])) for name, part in parts.items()}
    return reports.triage_flow(triaged, destinations)
