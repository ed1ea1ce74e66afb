"""Nodes of the stage `judging`."""

import logging
from typing import Any

import pandas as pd

from realignment import intake, judging
from realignment.oracles.factory import build_oracle, report_usage, without_store
from realignment.parameters import IntakeParameters, JudgingParameters
from realignment.policy import Policy, diff_policies
from realignment.policy.severity import grade_pairs
from realignment.tracking import lineage

logger = logging.getLogger(__name__)


def read_pairs(
    raw_pairs: pd.DataFrame, parameters: IntakeParameters, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Clean the pairs; rows that cannot be used go to the rejects table with their reason."""
    rows = len(raw_pairs)
    if parameters.limit is not None and parameters.limit < rows:
        raw_pairs = raw_pairs.sample(parameters.limit, random_state=seed).sort_index()
    result = intake.clean_pairs(raw_pairs, **parameters.model_dump(exclude={"limit"}))
    log_intake(result.report, rows)
    return result.pairs, result.rejected_rows, result.report


def log_intake(report: dict[str, Any], rows: int) -> None:
    """Log what became of the rows of the source: no row is left out or rejected silently."""
    if report["rows"] < rows:
        logger.warning("Only %d of %d rows are used (`intake.limit`)", report["rows"], rows)
    logger.info("%d of %d rows are usable pairs (%s)", report["pairs"], report["rows"], report["format"])
    if report["rejected"]:
        logger.warning("%d rows were set aside, see rejected_rows: %s", report["rejected"], report["reasons"])


def read_graded_pairs(
    raw_pairs: pd.DataFrame, policy: Policy, parameters: IntakeParameters, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Clean the pairs; grades of harm become labels where the policy has tiers for them."""
    pairs, rejected_rows, report = read_pairs(raw_pairs, parameters, seed)
    return grade_pairs(pairs, policy), rejected_rows, report


def compare_policies(old_policy: Policy, policy: Policy) -> pd.DataFrame:
    """Tabulate what changed in the policy, rule by rule."""
    return diff_policies(old_policy, policy)


def judge_pairs(
    pairs: pd.DataFrame, policy: Policy, parameters: JudgingParameters, seed: int
) -> tuple[pd.DataFrame, dict[str, Any], dict[str, Any]]:
    """Judge every response under the new policy, and measure the oracle where the truth is known."""
    oracle = build_oracle(parameters, pairs)
    judgments = judging.judge_pairs(pairs, policy, oracle, chunk_size=parameters.pairs_per_chunk)
    report = judging.measure_oracle(pairs, judgments)
    # A store would repeat the stored verdict, so stability is measured on the oracle itself.
    report["stability"] = judging.measure_stability(
        pairs, policy, without_store(oracle), judgments, sample=parameters.stability_sample, seed=seed
    )
    report["usage"] = report_usage(oracle)
    limits = {"max_unscored": parameters.max_unscored, "min_stability": parameters.min_stability}
    judging.check_oracle(report, judgments, **limits)
    facts = lineage.judging_facts(policy, oracle.name)
    manifest = lineage.build_manifest(
        "judging", inputs={"pairs": pairs}, outputs={"judgments": judgments, "pairs": pairs}, **facts
    )
    return judgments, report, manifest
