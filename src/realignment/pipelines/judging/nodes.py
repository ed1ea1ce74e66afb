"""Nodes of the stage `judging`."""

import logging
from typing import Any

import pandas as pd

from realignment import intake, judging
from realignment.oracles.factory import appoint, report_usage, without_store
from realignment.parameters import IntakeParameters, JudgingParameters
from realignment.policy import Policy, diff_policies
from realignment.policy.severity import grade
from realignment.tracking import lineage

logger = logging.getLogger(__name__)


def read_pairs(
    raw_pairs: pd.DataFrame, parameters: IntakeParameters, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Clean the pairs; rows that cannot be used go to the rejects table with their reason."""
    given = len(raw_pairs)
    if parameters.limit is not None and parameters.limit < given:
        raw_pairs = raw_pairs.sample(parameters.limit, random_state=seed).sort_index()
    result = intake.clean_pairs(raw_pairs, **parameters.model_dump(exclude={"limit"}))
    log_intake(result.report, given)
    return result.pairs, result.rejected_rows, result.report


def log_intake(report: dict[str, Any], given: int) -> None:
    """Say what became of so many rows: nothing is left out or set aside in silence."""
    if report["rows"] < given:
        logger.warning("Only %d of %d rows are used (`intake.limit`)", report["rows"], given)
    logger.info("%d of %d rows are usable pairs (%s)", report["pairs"], report["rows"], report["format"])
    if report["rejected"]:
        logger.warning("%d rows were set aside, see rejected_rows: %s", report["rejected"], report["reasons"])


def read_graded_pairs(
    raw_pairs: pd.DataFrame, policy: Policy, parameters: IntakeParameters, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Clean the pairs; grades of harm become labels where the policy has tiers for them."""
    pairs, rejected_rows, report = read_pairs(raw_pairs, parameters, seed)
    return grade(pairs, policy), rejected_rows, report


def compare_policies(old_policy: Policy, policy: Policy) -> pd.DataFrame:
    """What changed in the policy, rule by rule."""
    return diff_policies(old_policy, policy)


def judge_pairs(
    pairs: pd.DataFrame, policy: Policy, parameters: JudgingParameters, seed: int
) -> tuple[pd.DataFrame, dict[str, Any], dict[str, Any]]:
    """Judge every response under the new policy, and measure the oracle where the truth is known."""
    oracle = appoint(parameters, pairs)
    judgments = judging.judge_pairs(pairs, policy, oracle, chunk_size=parameters.pairs_at_a_time)
    report = judging.measure_oracle(pairs, judgments)
    again, sample = without_store(oracle), parameters.stability_sample
    report["stability"] = judging.repeat_stability(pairs, policy, again, judgments, sample=sample, seed=seed)
    report["usage"] = report_usage(oracle)
    limits = {"max_unscored": parameters.max_unscored, "min_stability": parameters.min_stability}
    judging.check_oracle(report, judgments, **limits)
    facts = {"policy": policy.digest, "policy_version": policy.version, "oracle": oracle.name}
    manifest = lineage.seal(
        "judging", inputs={"pairs": pairs}, outputs={"judgments": judgments, "pairs": pairs}, **facts
    )
    return judgments, report, manifest
