"""Nodes of the stage `corrections`."""

import logging
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from realignment import corrections
from realignment.oracles.factory import build_oracle
from realignment.parameters import CorrectionsParameters, JudgingParameters
from realignment.parameters.base import ModelParameters
from realignment.policy import Policy
from realignment.tracking import lineage

logger = logging.getLogger(__name__)


def write_candidates(
    punish_pairs: pd.DataFrame,
    pairs: pd.DataFrame,
    triage_manifest: dict[str, Any],
    written_corrections: pd.DataFrame,
    policy: Policy,
    model_parameters: ModelParameters,
    judging: JudgingParameters,
    parameters: CorrectionsParameters,
    seed: int,
) -> pd.DataFrame:
    """Collect the corrections that people wrote, and sample the writer model where there are none."""
    lineage.check_tables(triage_manifest, {"punish_pairs": punish_pairs})
    lineage.check_policy(triage_manifest, policy.digest)
    people = corrections.collect_people_candidates(punish_pairs, pairs, written_corrections)
    missing_pairs = corrections.choose_pairs_to_correct(
        punish_pairs, people, sample=parameters.leakage_sample, seed=seed
    )
    writer = corrections.build_writer(parameters, model_parameters, parameters.verifier or judging, seed=seed)
    if writer is None or missing_pairs.empty:
        return people
    limits = {"samples": parameters.samples, "max_words": parameters.max_words}
    machine = corrections.write_candidates(missing_pairs, policy, writer, **limits)
    return pd.concat([people, machine], ignore_index=True)


def verify_candidates(
    correction_candidates: pd.DataFrame,
    punish_pairs: pd.DataFrame,
    pairs: pd.DataFrame,
    triage_manifest: dict[str, Any],
    policy: Policy,
    judging: JudgingParameters,
    parameters: CorrectionsParameters,
    seed: int,
) -> pd.DataFrame:
    """Check the quality of every candidate, judge the rest by an oracle that wrote none, and choose."""
    lineage.check_tables(triage_manifest, {"punish_pairs": punish_pairs})
    lineage.check_policy(triage_manifest, policy.digest)
    corrections.check_origin(correction_candidates, punish_pairs, policy.digest)
    gate = corrections.QualityGate(**parameters.quality.model_dump())
    assessed = corrections.assess_quality(correction_candidates, punish_pairs, gate, seed=seed)
    oracle = build_oracle(parameters.verifier or judging, pairs)
    authors_vouch = parameters.verifier is None
    verified = corrections.verify_candidates(
        assessed, punish_pairs, policy, oracle, authors_vouch=authors_vouch
    )
    return corrections.choose_corrections(verified, min_confidence=parameters.min_confidence)


def correct_pairs(
    invert_pairs: pd.DataFrame,
    punish_pairs: pd.DataFrame,
    retain_pairs: pd.DataFrame,
    triage_manifest: dict[str, Any],
    verified_corrections: pd.DataFrame,
) -> tuple[pd.DataFrame, dict[str, Any], dict[str, Any]]:
    """Give every PUNISH pair its selected correction; one without is suppressed instead."""
    splits = {"invert_pairs": invert_pairs, "punish_pairs": punish_pairs, "retain_pairs": retain_pairs}
    lineage.check_tables(triage_manifest, splits)
    corrections.check_origin(verified_corrections, punish_pairs, triage_manifest["policy"])
    corrected = corrections.apply_corrections(punish_pairs, verified_corrections)
    report = corrections.report_corrections(punish_pairs, verified_corrections)
    facts = lineage.inherited_facts(triage_manifest)
    facts |= {"instruction": corrections.digest_instruction(), "verifier": report["verifier"]}
    outputs = {"invert_pairs": invert_pairs, "corrected_pairs": corrected, "retain_pairs": retain_pairs}
    inputs = {**splits, "verified_corrections": verified_corrections}
    logger.info("%(corrected)d of %(pairs)d PUNISH pairs have a correction", report)
    return corrected, report, lineage.build_manifest("corrections", inputs=inputs, outputs=outputs, **facts)


def measure_leakage(
    verified_corrections: pd.DataFrame, human_verdicts: pd.DataFrame, policy: Policy, seed: int
) -> pd.DataFrame:
    """Measure how far machines' corrections are from people's, and the verifier from people's verdicts."""
    leakage = corrections.measure_leakage(verified_corrections, seed=seed)
    agreement = corrections.measure_verifier(verified_corrections, human_verdicts, policy, seed=seed)
    return pd.concat([part for part in (leakage, agreement) if len(part)] or [leakage], ignore_index=True)


def draw_leakage(correction_leakage: pd.DataFrame) -> go.Figure:
    """Draw the differences with intervals: policy, length, style."""
    from realignment import reports

    return reports.draw_correction_leakage(correction_leakage)
