"""Nodes of the stage `promotion`."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from realignment.parameters import PromotionParameters
from realignment.policy import Policy
from realignment.promotion.gate import gate
from realignment.promotion.summary import headline, summarize
from realignment.tracking import provenance, registry, timing

logger = logging.getLogger(__name__)


def pass_gate(
    evaluation_table: pd.DataFrame, policy: Policy, parameters: PromotionParameters
) -> dict[str, Any]:
    """Decide whether the candidate may become champion, with reasons."""
    champion = registry.read_champion(parameters.registered_model, policy_digest=policy.digest)
    limits = parameters.model_dump(exclude={"registered_model"})
    return dict(gate(evaluation_table, champion=champion, **limits))


def register_model(
    realigned_model: str,
    gate_report: dict[str, Any],
    evaluation_table: pd.DataFrame,
    policy: Policy,
    training_manifest: dict[str, Any],
    parameters: PromotionParameters,
) -> dict[str, Any]:
    """Register the model as candidate, and as champion if it passed the gate."""
    measured = headline(evaluation_table, "agreement")
    tags = {
        "policy_name": policy.name,
        "policy_version": policy.version,
        "policy_digest": policy.digest,
        "oracle": str(training_manifest["oracle"]),
        "code": provenance.code_revision(Path.cwd()) or "unknown",
    }
    if measured is not None:
        tags["agreement"] = f"{measured['after']:.6f}"
    passed = bool(gate_report["passed"])
    return dict(
        registry.register_checkpoint(
            Path(realigned_model), name=parameters.registered_model, tags=tags, passed=passed
        )
    )


def summarize_run(
    evaluation_table: pd.DataFrame,
    triage_report: dict[str, Any],
    oracle_report: dict[str, Any],
    gate_report: dict[str, Any],
    registered_model: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The summary, once where scripts find it and once versioned; and the closing table in the log."""
    from realignment import reports

    summary = summarize(
        evaluation_table,
        splits=triage_report["counts"],
        oracle=oracle_report,
        gate=gate_report,
        model=registered_model,
        timings=timing.snapshot(),
    )
    logger.info("Result\n%s", reports.render_summary_table(summary, evaluation_table))
    return summary, summary


def write_report(
    summary: dict[str, Any],
    gate_report: dict[str, Any],
    registered_model: dict[str, Any],
    policy_diff: pd.DataFrame,
    triage_report: dict[str, Any],
    triage_flow: go.Figure,
    rejected_rows: pd.DataFrame,
    oracle_report: dict[str, Any],
    audit_report: dict[str, Any],
    triage_manifest: dict[str, Any],
    corrections_report: dict[str, Any],
    correction_leakage: pd.DataFrame,
    correction_leakage_figure: go.Figure,
    impact_report: dict[str, Any],
    impact_figure: go.Figure,
    training_figure: go.Figure,
    evaluation_table: pd.DataFrame,
    evaluation_figure: go.Figure,
    evaluation_judge: dict[str, Any],
    responses: pd.DataFrame,
    training_manifest: dict[str, Any],
    policy: Policy,
    old_policy: Policy,
    parameters: dict[str, Any],
) -> tuple[str, str]:
    """One self-contained page per run, once where people find it and once versioned."""
    from realignment import reports

    page = reports.render_report(
        reports.RunResults(
            title=f"{policy.name}: policy {old_policy.version} → {policy.version}",
            subtitle=f"policy {policy.digest[:12]}, oracle {training_manifest['oracle']}",
            summary=summary,
            gate_report=gate_report,
            registered_model=registered_model,
            policy_diff=policy_diff,
            triage_report=triage_report,
            triage_flow=triage_flow,
            rejected_rows=rejected_rows,
            oracle_report=oracle_report,
            audit_report=audit_report,
            triage_manifest=triage_manifest,
            corrections_report=corrections_report,
            correction_leakage=correction_leakage,
            correction_leakage_figure=correction_leakage_figure,
            impact_report=impact_report,
            impact_figure=impact_figure,
            training_figure=training_figure,
            evaluation_table=evaluation_table,
            evaluation_figure=evaluation_figure,
            evaluation_judge=evaluation_judge,
            responses=reports.pick_answers(responses),
            parameters=parameters,
            manifests=[training_manifest],
        )
    )
    return page, page
