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
    """What people are asked: pairs in review, the audit sample, and corrections."""
    from realignment.review import tasks

    lineage.check(triage_manifest, {"review_pairs": review_pairs, "punish_pairs": punish_pairs})
    shown = review_pairs
    if parameters.limit is not None and len(shown) > parameters.limit:
        logger.warning(
            "Only %d of %d pairs in review are asked (`review.limit`)", parameters.limit, len(shown)
        )
        shown = shown.sample(parameters.limit, random_state=seed)
    audited = review_sample if parameters.audit else review_sample.head(0)
    drawn = verified_corrections.head(0)
    if parameters.corrections:
        corrections.check_origin(verified_corrections, punish_pairs, policy.digest)
        drawn = corrections.draw_for_people(verified_corrections, size=parameters.corrections, seed=seed)
    listed = tasks.combine_tasks(
        tasks.list_tasks(shown, policy, "review"),
        tasks.list_tasks(audited, policy, "audit"),
        tasks.list_corrections(drawn, punish_pairs, policy),
    )
    logger.info(
        "%d responses to judge, of %d pairs, and %d corrections",
        len(listed), len(shown) + len(audited), len(drawn),
    )  # fmt: skip
    return listed


def write_forms(
    review_tasks: pd.DataFrame, policy: Policy
) -> tuple[pd.DataFrame, str, list[dict[str, Any]], str, list[dict[str, Any]], str]:
    """The tasks in every form that people can fill in."""
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
    """What people said, checked, and how far they agree."""
    from realignment.review import reliability, tasks, verdicts

    asked = tasks.combine_tasks(
        tasks.list_tasks(pairs, policy, ""), tasks.list_corrections(verified_corrections, pairs, policy)
    )
    checked = verdicts.check_verdicts(returned_verdicts, asked, policy, same_as=parameters.same_as)
    report = reliability.report_reliability(
        checked, unfilled=len(returned_verdicts) - len(checked), seed=seed
    )
    logger.info(
        "%d verdicts on %d responses by %d people, α %s",
        report["verdicts"], report["tasks"], len(report["by_annotator"]),
        "unknown: no response has two verdicts" if report["alpha"] is None else f"{report['alpha']:.2f}",
    )  # fmt: skip
    return checked, report
