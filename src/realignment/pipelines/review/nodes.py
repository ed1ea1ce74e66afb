"""Nodes of the pipelines `review_export` and `review_import`."""

import logging
from typing import Any

import pandas as pd

from realignment import corrections
from realignment.parameters import ReviewParameters
from realignment.policy import Policy
from realignment.tracking import lineage

logger = logging.getLogger(__name__)


def list_review_tasks(
    review_pairs: pd.DataFrame,
    review_sample: pd.DataFrame,
    punish_pairs: pd.DataFrame,
    verified_corrections: pd.DataFrame,
    triage_manifest: dict[str, Any],
    policy: Policy,
    parameters: ReviewParameters,
    seed: int,
) -> pd.DataFrame:
    """List what people are asked to judge: pairs in review, the audit sample, and corrections."""
    from realignment.review import tasks

    lineage.check_tables(triage_manifest, {"review_pairs": review_pairs, "punish_pairs": punish_pairs})
    pairs = _limit_pairs(review_pairs, parameters.limit, seed)
    audit_pairs = review_sample if parameters.audit else review_sample.head(0)
    sample = verified_corrections.head(0)
    if parameters.corrections:
        corrections.check_origin(verified_corrections, punish_pairs, policy.digest)
        sample = corrections.sample_for_review(verified_corrections, size=parameters.corrections, seed=seed)
    review_tasks = tasks.combine_tasks(
        tasks.list_tasks(pairs, policy, "review"),
        tasks.list_tasks(audit_pairs, policy, "audit"),
        tasks.list_corrections(sample, punish_pairs, policy),
    )
    sizes = (len(review_tasks), len(pairs) + len(audit_pairs), len(sample))
    logger.info("%d responses to judge, of %d pairs, and %d corrections", *sizes)
    return review_tasks


def _limit_pairs(pairs: pd.DataFrame, limit: int | None, seed: int) -> pd.DataFrame:
    if limit is None or len(pairs) <= limit:
        return pairs
    logger.warning("People judge only %d of %d pairs in review (`review.limit`)", limit, len(pairs))
    return pairs.sample(limit, random_state=seed)


def write_forms(
    review_tasks: pd.DataFrame, policy: Policy
) -> tuple[pd.DataFrame, str, list[dict[str, Any]], str, list[dict[str, Any]], str]:
    """Write the tasks in every form that people can fill in."""
    from realignment.review import forms

    return (
        forms.as_spreadsheet(review_tasks),
        forms.as_json_lines(review_tasks),
        forms.as_label_studio(review_tasks),
        forms.label_studio_config(policy),
        forms.as_argilla(review_tasks),
        forms.guidelines(policy, review_tasks),
    )


def import_verdicts(
    returned_verdicts: pd.DataFrame,
    pairs: pd.DataFrame,
    verified_corrections: pd.DataFrame,
    policy: Policy,
    parameters: ReviewParameters,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Check the verdicts that people handed back, and measure how far they agree."""
    from realignment.review import reliability, tasks, verdicts

    known_tasks = tasks.combine_tasks(
        tasks.list_tasks(pairs, policy, ""), tasks.list_corrections(verified_corrections, pairs, policy)
    )
    human_verdicts = verdicts.check_verdicts(
        returned_verdicts, known_tasks, policy, same_as=parameters.same_as
    )
    report = reliability.report_reliability(
        human_verdicts, unfilled=len(returned_verdicts) - len(human_verdicts), seed=seed
    )
    logger.info(
        "%d verdicts on %d responses by %d people, α %s",
        report["verdicts"], report["tasks"], len(report["by_annotator"]),
        "unknown: no response has two verdicts" if report["alpha"] is None else f"{report['alpha']:.2f}",
    )  # fmt: skip
    return human_verdicts, report
