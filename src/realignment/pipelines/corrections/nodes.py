"""Nodes of the stage `corrections`."""

import logging
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from realignment import corrections
from realignment.oracles.factory import appoint
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
    """What people wrote, and where they did not, samples of the writer."""
    lineage.check(triage_manifest, {"punish_pairs": punish_pairs})
    lineage.check_policy(triage_manifest, policy.digest)
    people = corrections.people_candidates(punish_pairs, pairs, written_corrections)
    wanted = corrections.choose_pairs(punish_pairs, people, sample=parameters.leakage_sample, seed=seed)
    writer = corrections.appoint_writer(
        parameters, model_parameters, parameters.verifier or judging, seed=seed
    )
    if writer is None or wanted.empty:
        return people
    limits = {"samples": parameters.samples, "max_words": parameters.max_words}
    machine = corrections.write_candidates(wanted, policy, writer, **limits)
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
    """Gate every candidate, let an oracle that did not write them judge the rest, and choose."""
    lineage.check(triage_manifest, {"punish_pairs": punish_pairs})
    lineage.check_policy(triage_manifest, policy.digest)
    corrections.check_origin(correction_candidates, punish_pairs, policy.digest)
    gate = corrections.Gate(**parameters.quality.model_dump())
    assessed = corrections.assess(correction_candidates, punish_pairs, gate, seed=seed)
    oracle = appoint(parameters.verifier or judging, pairs)
    authors_vouch = parameters.verifier is None
    verified = corrections.verify(assessed, punish_pairs, policy, oracle, authors_vouch=authors_vouch)
    return corrections.choose(verified, min_confidence=parameters.min_confidence)


def correct_pairs(
    invert_pairs: pd.DataFrame,
    punish_pairs: pd.DataFrame,
    retain_pairs: pd.DataFrame,
    triage_manifest: dict[str, Any],
    verified_corrections: pd.DataFrame,
) -> tuple[pd.DataFrame, dict[str, Any], dict[str, Any]]:
    """Give every PUNISH pair its selected correction; one without is suppressed instead."""
    splits = {"invert_pairs": invert_pairs, "punish_pairs": punish_pairs, "retain_pairs": retain_pairs}
    lineage.check(triage_manifest, splits)
    corrections.check_origin(verified_corrections, punish_pairs, triage_manifest["policy"])
    corrected = corrections.correct(punish_pairs, verified_corrections)
    report = corrections.report(punish_pairs, verified_corrections)
    facts = {key: triage_manifest[key] for key in ("policy", "policy_version", "oracle")}
    outputs = {"invert_pairs": invert_pairs, "corrected_pairs": corrected, "retain_pairs": retain_pairs}
    inputs = {**splits, "verified_corrections": verified_corrections}
    facts |= {"instruction": corrections.instruction_digest(), "verifier": report["verifier"]}
    logger.info("%(corrected)d of %(pairs)d PUNISH pairs have a correction", report)
    return corrected, report, lineage.seal("corrections", inputs=inputs, outputs=outputs, **facts)


def measure_leakage(
    verified_corrections: pd.DataFrame, human_verdicts: pd.DataFrame, policy: Policy, seed: int
) -> pd.DataFrame:
    """How far each machine's corrections are from those of people, and the verifier from their verdicts."""
    written = corrections.measure_leakage(verified_corrections, seed=seed)
    verified = corrections.measure_verifier(verified_corrections, human_verdicts, policy, seed=seed)
    return pd.concat([part for part in (written, verified) if len(part)] or [written], ignore_index=True)


def draw_leakage(correction_leakage: pd.DataFrame) -> go.Figure:
    """The differences with intervals: policy, length, style."""
    from realignment import reports

    return reports.correction_leakage(correction_leakage)
