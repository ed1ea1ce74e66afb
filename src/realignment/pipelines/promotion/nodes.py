"""Nodes of the stage `promotion`."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from realignment.parameters import AuditParameters, PromotionParameters
from realignment.policy import Policy
from realignment.promotion import gate
from realignment.promotion.audit import check_audit
from realignment.promotion.summary import headline, summarize
from realignment.tracking import provenance, registry, timing

logger = logging.getLogger(__name__)


def pass_gate(
    evaluation_table: pd.DataFrame,
    evaluation_judge: dict[str, Any],
    responses: pd.DataFrame,
    policy: Policy,
    audit_report: dict[str, Any],
    triage_manifest: dict[str, Any],
    audit: AuditParameters,
    parameters: PromotionParameters,
) -> dict[str, Any]:
    """Decide by the rules whether the candidate may become champion, with reasons."""
    audited = None
    if parameters.gate.require_audit:
        audited = check_audit(audit_report, triage_manifest, limit=audit.max_misrouted)
    report = gate.evaluate_gate(
        evaluation_table,
        parameters.gate.rules,
        headline_judges=gate.read_headline_judges(evaluation_judge),
        champion=_compare_with_champion(responses, policy, parameters.registered_model),
        audit=audited,
    )
    return dict(report)


def _compare_with_champion(responses: pd.DataFrame, policy: Policy, name: str) -> gate.Champion | None:
    from realignment.evaluation.champion import compare_with_champion

    stored = registry.read_champion(name, policy_digest=policy.digest)
    if stored is None:
        return None
    answers = stored["responses"] if stored["responses"] is not None else responses.iloc[:0]
    return gate.Champion(stored["version"], compare_with_champion(responses, answers))


def register_model(
    realigned_model: str,
    gate_report: dict[str, Any],
    evaluation_table: pd.DataFrame,
    evaluation_judge: dict[str, Any],
    responses: pd.DataFrame,
    policy: Policy,
    training_manifest: dict[str, Any],
    parameters: PromotionParameters,
) -> dict[str, Any]:
    """Register the model as candidate, and as champion if it passed the gate."""
    agreement = headline(evaluation_table, "agreement", evaluation_judge.get("headline"))
    tags = {
        "policy_name": policy.name,
        "policy_version": policy.version,
        "policy_digest": policy.digest,
        "oracle": str(training_manifest["oracle"]),
        "code": provenance.get_code_revision(Path.cwd()) or "unknown",
    }
    if agreement is not None:
        tags |= {"agreement": f"{agreement['after']:.6f}", "agreement_judge": str(agreement["judge"])}
    registered = registry.register_checkpoint(
        Path(realigned_model),
        name=parameters.registered_model,
        tags=tags,
        passed=bool(gate_report["passed"]),
        responses=responses,
    )
    return dict(registered)


def summarize_run(
    evaluation_table: pd.DataFrame,
    evaluation_judge: dict[str, Any],
    triage_report: dict[str, Any],
    oracle_report: dict[str, Any],
    gate_report: dict[str, Any],
    registered_model: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Summarise the run, once where scripts find it and once versioned, and log the closing table."""
    from realignment import reports

    summary = summarize(
        evaluation_table,
        splits=triage_report["counts"],
        oracle=oracle_report,
        gate=gate_report,
        model=registered_model,
        timings=timing.take_snapshot(),
        judges=evaluation_judge.get("headline"),
    )
    logger.info("Result\n%s", reports.render_summary_table(summary, evaluation_table))
    return summary, summary


def write_report(
    policy: Policy,
    old_policy: Policy,
    training_manifest: dict[str, Any],
    responses: pd.DataFrame,
    **results: Any,
) -> tuple[str, str]:
    """Write one self-contained page per run, once where people find it and once versioned."""
    from realignment import reports

    run = reports.RunResults(
        title=f"{policy.name}: policy {old_policy.version} → {policy.version}",
        subtitle=f"policy {policy.digest[:12]}, oracle {training_manifest['oracle']}",
        responses=reports.pick_answers(responses),
        manifests=[training_manifest],
        **results,
    )
    page = reports.render_report(run)
    return page, page


def enforce_gate(
    gate_report: dict[str, Any], run_summary: dict[str, Any], run_report: str, parameters: PromotionParameters
) -> None:
    """Stop the run if the gate did not pass, where that is wanted: after summary and report are written."""
    if parameters.gate.enforce:
        gate.enforce(gate_report)
