"""Nodes of the stage `gold`."""

import logging
from collections import Counter
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from realignment import triage
from realignment.audit import calibration, consequences
from realignment.gold.batch import partition_pairs
from realignment.parameters import (
    AuditParameters,
    EvaluationParameters,
    GoldParameters,
    JudgingParameters,
)
from realignment.policy import Policy
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
    lineage.check_tables(corrections_manifest, splits)
    # The oracle's error rates hold for these splits alone: an audit of other splits must not count.
    lineage.check_tables(triage_manifest, {"invert_pairs": invert_pairs, "retain_pairs": retain_pairs})
    counts = _count_dispositions(invert_pairs, corrected_pairs, retain_pairs)
    triage.check_triage(counts)
    has_error_rates = consequences.check_misrouting(
        triage_manifest, oracle_report, audit_report, limit=audit.max_misrouted
    )
    _check_conflicts(counts, corrections_manifest["policy_version"])
    triaged = pd.concat(splits.values(), ignore_index=True)
    if has_error_rates:
        triaged["error_rate"] = calibration.error_rates(triaged, audit_report["error_rates"])
    parts = partition_pairs(
        triaged,
        held_out_share=parameters.held_out_share,
        gold_size=parameters.size,
        composition=parameters.composition,
        retained=parameters.retained,
        punished=parameters.punished,
        seed=seed,
    )
    outputs = {"held_out_pairs": parts.held_out, "gold_batch": parts.gold, "training_pairs": parts.training}
    facts = lineage.inherited_facts(corrections_manifest)
    manifest = lineage.build_manifest("gold", inputs=splits, outputs=outputs, seed=seed, **facts)
    logger.info(", ".join(f"{len(table)} {name.replace('_', ' ')}" for name, table in outputs.items()))
    return parts.held_out, parts.gold, parts.training, manifest


def _count_dispositions(invert: pd.DataFrame, punish: pd.DataFrame, retain: pd.DataFrame) -> dict[str, int]:
    """Pairs of every disposition; none are in review here."""
    return {
        **dict.fromkeys(map(str, Disposition), 0),
        str(Disposition.INVERT): len(invert),
        str(Disposition.PUNISH): len(punish),
        str(Disposition.RETAIN): len(retain),
    }


def _check_conflicts(counts: dict[str, int], policy_version: str) -> None:
    if not counts[Disposition.INVERT] + counts[Disposition.PUNISH]:
        raise NothingToDo(
            f"All {counts[Disposition.RETAIN]} judged pairs already comply with policy version "
            f"{policy_version}: there is nothing to re-align."
        )


def check_evaluation_prompts(
    evaluation_prompts: pd.DataFrame,
    held_out_pairs: pd.DataFrame,
    gold_batch: pd.DataFrame,
    training_pairs: pd.DataFrame,
    parameters: EvaluationParameters,
) -> None:
    """Stop before training where an evaluation prompt is among the pairs, or nearly so."""
    from realignment.evaluation.answers import select_prompts

    pairs = pd.concat([held_out_pairs, gold_batch, training_pairs], ignore_index=True)
    select_prompts(
        evaluation_prompts, pairs, split=parameters.split, max_similarity=parameters.max_prompt_similarity
    )


def check_attacks(
    attacks: list[Any],
    behaviours: pd.DataFrame,
    evaluation_prompts: pd.DataFrame,
    held_out_pairs: pd.DataFrame,
    gold_batch: pd.DataFrame,
    training_pairs: pd.DataFrame,
    labelled_answers: pd.DataFrame,
    policy: Policy,
    judging: JudgingParameters,
    parameters: EvaluationParameters,
) -> None:
    """Stop before training where an attack cannot be used, or asks for what is among the pairs."""
    from realignment.evaluation import judges
    from realignment.evaluation.attacks.behaviours import collect_attack_prompts

    pairs = pd.concat([held_out_pairs, gold_batch, training_pairs], ignore_index=True)
    judged = judges.can_judge(labelled_answers, policy, judging, parameters)
    collect_attack_prompts(attacks, policy, behaviours, evaluation_prompts, pairs, parameters, judged=judged)


def check_capability(parameters: EvaluationParameters) -> None:
    """Stop before training where a task of general ability is unknown, or a file of questions is missing."""
    from realignment.evaluation import capability

    capability.check_inputs(parameters.capability)


def draw_triage_flow(
    invert_pairs: pd.DataFrame,
    punish_pairs: pd.DataFrame,
    retain_pairs: pd.DataFrame,
    review_pairs: pd.DataFrame,
    held_out_pairs: pd.DataFrame,
    gold_batch: pd.DataFrame,
    training_pairs: pd.DataFrame,
) -> go.Figure:
    """Draw the way of every pair, from its two verdicts to what it is used for."""
    from realignment import reports

    triaged = pd.concat([invert_pairs, punish_pairs, retain_pairs, review_pairs], ignore_index=True)
    parts = {"held out": held_out_pairs, "gold": gold_batch, "training": training_pairs}
    destinations = {name: Counter(map(str, part["disposition"])) for name, part in parts.items()}
    return reports.draw_triage_flow(triaged, destinations)
