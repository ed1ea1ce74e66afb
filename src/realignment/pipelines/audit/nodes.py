"""Nodes of the pipeline `audit`."""

import logging
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from realignment.parameters import AuditParameters, JudgingParameters
from realignment.policy import Policy
from realignment.records import Disposition
from realignment.tracking import lineage

logger = logging.getLogger(__name__)


def draw_audit_sample(
    parameters: AuditParameters, seed: int, triage_manifest: dict[str, Any], **splits: pd.DataFrame
) -> pd.DataFrame:
    """Draw equally many pairs of every disposition, each with the probability with which it was drawn."""
    from realignment.audit import sampling, truth

    triaged = _join_splits(triage_manifest, splits)
    if parameters.truth == "labels":
        triaged = triaged.assign(eligible=truth.has_true_disposition(truth.truth_from_labels(triaged)))
    return sampling.draw_sample(triaged, size=parameters.size, seed=seed)


def draw_people_sample(
    parameters: AuditParameters, seed: int, triage_manifest: dict[str, Any], **splits: pd.DataFrame
) -> pd.DataFrame:
    """Draw the audit sample that people are to judge, whatever `audit.truth` is set to now."""
    by_people = parameters.model_copy(update={"truth": "people"})
    return draw_audit_sample(by_people, seed, triage_manifest, **splits)


def judge_audit_sample(
    audit_sample: pd.DataFrame,
    judgments: pd.DataFrame,
    policy: Policy,
    judging_parameters: JudgingParameters,
    parameters: AuditParameters,
) -> pd.DataFrame:
    """Judge the sample again, by the audited oracle and by those that it is compared with."""
    from realignment.audit.repeats import judge_again

    judged_by = str(judgments["oracle"].iloc[0])
    _is_independent(judged_by, judging_parameters, parameters)  # refuses a circular audit before any call
    again = [judging_parameters] * parameters.repeats
    return judge_again(audit_sample, policy, judged_by=judged_by, again=again, others=parameters.compare)


def measure_audit(
    judgments: pd.DataFrame,
    audit_sample: pd.DataFrame,
    audit_judgments: pd.DataFrame,
    human_verdicts: pd.DataFrame,
    policy: Policy,
    judging_parameters: JudgingParameters,
    parameters: AuditParameters,
    seed: int,
    triage_manifest: dict[str, Any],
    **splits: pd.DataFrame,
) -> tuple[pd.DataFrame | dict[str, Any], ...]:
    """Measure the oracle against the truth, and against other oracles."""
    from realignment.audit import comparison, consequences, measuring, truth

    triaged = _join_splits(triage_manifest, splits)
    lineage.check_tables(triage_manifest | {"outputs": triage_manifest["inputs"]}, {"judgments": judgments})
    independent = _is_independent(str(judgments["oracle"].iloc[0]), judging_parameters, parameters)
    true_verdicts = truth.read_truth(parameters.truth, triaged, human_verdicts, policy)
    audit = measuring.audit_oracle(triaged, judgments, audit_sample, true_verdicts, seed=seed)
    agreements = comparison.compare_oracles(triaged, judgments, audit_judgments, seed=seed)
    history = measuring.measure_growth(triaged, audit.audited, seed=seed)
    metrics = pd.concat([audit.metrics, measuring.tabulate(agreements)], ignore_index=True)
    report = consequences.report_audit(
        audit, metrics, truth=parameters.truth, manifest=triage_manifest, independent=independent
    )
    logger.info(report["meaning"])
    return audit.audited, metrics, audit.confusion, audit.reliability, history, report


def _is_independent(judged_by: str, judging: JudgingParameters, parameters: AuditParameters) -> bool:
    from realignment.audit import truth

    # Parameters that name another oracle say nothing of what the one that judged is made of.
    members = [single.oracle for single in judging.leaf_oracles()] if judging.oracle == judged_by else []
    return truth.is_independent(parameters.truth, judged_by, members)


def _join_splits(manifest: dict[str, Any], splits: dict[str, pd.DataFrame]) -> pd.DataFrame:
    lineage.check_tables(manifest, splits)
    ordered = [splits[f"{disposition.lower()}_pairs"] for disposition in Disposition]
    return pd.concat([split for split in ordered if len(split)], ignore_index=True)


def draw_audit_figures(
    audit_metrics: pd.DataFrame,
    audit_confusion: pd.DataFrame,
    audit_reliability: pd.DataFrame,
    audit_history: pd.DataFrame,
) -> tuple[go.Figure, go.Figure, go.Figure, go.Figure]:
    """Draw figures with intervals, assigned against true dispositions, reliability, and growth."""
    from realignment.reports import audit

    return (
        audit.draw_scores(audit_metrics),
        audit.draw_confusion(audit_confusion),
        audit.draw_reliability(audit_reliability),
        audit.draw_growth(audit_history),
    )
