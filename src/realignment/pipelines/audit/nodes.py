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
    invert_pairs: pd.DataFrame,
    punish_pairs: pd.DataFrame,
    retain_pairs: pd.DataFrame,
    review_pairs: pd.DataFrame,
    triage_manifest: dict[str, Any],
    parameters: AuditParameters,
    seed: int,
) -> pd.DataFrame:
    """Equally many pairs of every disposition, with the probability with which each was drawn."""
    from realignment.audit import sampling, truth

    triaged = _join_splits(triage_manifest, invert_pairs, punish_pairs, retain_pairs, review_pairs)
    if parameters.truth == "labels":
        triaged = triaged.assign(eligible=truth.is_known(truth.from_labels(triaged)))
    return sampling.draw_sample(triaged, size=parameters.size, seed=seed)


def draw_people_sample(
    invert_pairs: pd.DataFrame,
    punish_pairs: pd.DataFrame,
    retain_pairs: pd.DataFrame,
    review_pairs: pd.DataFrame,
    triage_manifest: dict[str, Any],
    parameters: AuditParameters,
    seed: int,
) -> pd.DataFrame:
    """The sample that `audit.truth: people` draws, whatever the truth is set to now: they are to judge it."""
    by_people = parameters.model_copy(update={"truth": "people"})
    splits = (invert_pairs, punish_pairs, retain_pairs, review_pairs)
    return draw_audit_sample(*splits, triage_manifest, by_people, seed)


def judge_audit_sample(
    audit_sample: pd.DataFrame,
    judgments: pd.DataFrame,
    policy: Policy,
    judging_parameters: JudgingParameters,
    parameters: AuditParameters,
) -> pd.DataFrame:
    """The oracle judges the sample again, and so do the oracles it is compared with."""
    from realignment.audit.repeats import ask_oracles

    judged_by = str(judgments["oracle"].iloc[0])
    _is_independent(judged_by, judging_parameters, parameters)  # before anybody is asked
    again = [judging_parameters] * parameters.repeats
    return ask_oracles(audit_sample, policy, judged_by=judged_by, again=again, others=parameters.compare)


def measure_audit(
    invert_pairs: pd.DataFrame,
    punish_pairs: pd.DataFrame,
    retain_pairs: pd.DataFrame,
    review_pairs: pd.DataFrame,
    triage_manifest: dict[str, Any],
    judgments: pd.DataFrame,
    audit_sample: pd.DataFrame,
    audit_judgments: pd.DataFrame,
    human_verdicts: pd.DataFrame,
    policy: Policy,
    judging_parameters: JudgingParameters,
    parameters: AuditParameters,
    seed: int,
) -> tuple[pd.DataFrame | dict[str, Any], ...]:
    """Every figure of the oracle against the truth."""
    from realignment.audit import comparison, consequences, measuring, truth

    triaged = _join_splits(triage_manifest, invert_pairs, punish_pairs, retain_pairs, review_pairs)
    lineage.check(triage_manifest | {"outputs": triage_manifest["inputs"]}, {"judgments": judgments})
    independent = _is_independent(str(judgments["oracle"].iloc[0]), judging_parameters, parameters)
    known = truth.of(parameters.truth, triaged, human_verdicts, policy)
    audit = measuring.measure(triaged, judgments, audit_sample, known, seed=seed)
    compared = measuring.tabulate(comparison.compare_oracles(triaged, judgments, audit_judgments, seed=seed))
    history = measuring.follow(triaged, audit.audited, seed=seed)
    metrics = pd.concat([audit.metrics, compared], ignore_index=True)
    report = consequences.report_audit(
        audit, metrics, truth=parameters.truth, manifest=triage_manifest, independent=independent
    )
    logger.info(report["meaning"])
    return audit.audited, metrics, audit.confusion, audit.reliability, history, report


def _is_independent(judged_by: str, judging: JudgingParameters, parameters: AuditParameters) -> bool:
    from realignment.audit import truth

    members = [single.oracle for single in judging.singles()] if judging.oracle == judged_by else []
    return truth.is_independent(parameters.truth, judged_by, members)


def _join_splits(manifest: dict[str, Any], *splits: pd.DataFrame) -> pd.DataFrame:
    names = (f"{disposition.lower()}_pairs" for disposition in Disposition)
    lineage.check(manifest, dict(zip(names, splits, strict=True)))
    return pd.concat([split for split in splits if len(split)], ignore_index=True)


def draw_audit_figures(
    audit_metrics: pd.DataFrame,
    audit_confusion: pd.DataFrame,
    audit_reliability: pd.DataFrame,
    audit_history: pd.DataFrame,
) -> tuple[go.Figure, go.Figure, go.Figure, go.Figure]:
    """Figures with intervals, assigned against true dispositions, reliability, and the audit as it grew."""
    from realignment.reports import audit

    return (
        audit.scores(audit_metrics),
        audit.confusion(audit_confusion),
        audit.reliability(audit_reliability),
        audit.growth(audit_history),
    )
