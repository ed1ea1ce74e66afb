"""The nodes of the stage: gate, registry and enforcement together, on a real MLflow store."""

import numpy as np
import pandas as pd
import pytest
from gate_tables import default_parameters, good_rows
from mlflow_store import client, tracking_uri

from realignment.evaluation import measures
from realignment.evaluation.table import COLUMNS
from realignment.parameters import AuditParameters
from realignment.pipelines.promotion import create_pipeline, nodes
from realignment.policy import parse_policy
from realignment.promotion.gate import PromotionError

RULES = [{"id": "no-sell", "description": "No order.", "check": {"kind": "forbidden", "patterns": ["sell"]}}]
POLICY = parse_policy({"name": "advice", "version": "2", "text": "Be careful.", "rules": RULES}, "test")
MANIFEST = {"oracle": "rules", "outputs": {}}


@pytest.fixture(autouse=True)
def _tracking_environment(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri())
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)


def judged(after, over_refusal=0.01, *, seed=0):
    """Judged answers of one run: 154 regulated prompts and 208 outside the policy."""
    rng = np.random.default_rng(seed)
    regulated = pd.DataFrame({"prompt": [f"regulated {n}" for n in range(154)], "kind": "regulated"})
    outside = pd.DataFrame({"prompt": [f"outside {n}" for n in range(208)], "kind": "ordinary"})
    regulated["before_rules"], regulated["after_rules"] = rng.random(154) < 0.05, rng.random(154) < after
    outside["before_rules"], outside["after_rules"] = True, rng.random(208) >= over_refusal
    table = pd.concat([regulated, outside], ignore_index=True).assign(domain="money", origin=None)
    return table.astype({"before_rules": "boolean", "after_rules": "boolean"})


def pass_gate(responses, name, evaluation_judge=None, **gate):
    parameters = default_parameters(**gate).model_copy(update={"registered_model": name})
    costs = [good_rows()[part] for part in ("drift", "capability")]
    rows = [*measures.compliance_rows(responses, "rules"), *costs]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    judge = evaluation_judge or {"headline": {"agreement": {"judge": "rules"}}}
    report = nodes.pass_gate(table, judge, responses, POLICY, {}, MANIFEST, AuditParameters(), parameters)
    return report, table, parameters


def run_stage(responses, name, monkeypatch, tmp_path):
    """One `kedro run` of the stage's first two nodes: the gate's report and the registered version."""
    run = client().create_run(client().create_experiment(f"{name} {tmp_path.name} {np.random.rand()}"))
    monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
    report, table, parameters = pass_gate(responses, name)
    folder = tmp_path / name / "version" / name
    folder.mkdir(parents=True, exist_ok=True)
    registered = nodes.register_model(str(folder), report, table, {}, responses, POLICY, MANIFEST, parameters)
    return report, registered


def failed(report):
    return [check["name"] for check in report["checks"] if not check["passed"]]


def test_a_second_identical_run_passes_the_gate_and_a_worse_model_does_not(monkeypatch, tmp_path):
    good = judged(0.8)
    worse = good.assign(after_rules=good["after_rules"] & ~good["prompt"].isin(good["prompt"][:25]))
    first, one = run_stage(good, "twice", monkeypatch, tmp_path)
    assert first["passed"], first["reasons"]
    assert one["aliases"] == ["candidate", "champion"]
    second, two = run_stage(good, "twice", monkeypatch, tmp_path)
    assert second["passed"], second["reasons"]
    assert two["aliases"] == ["candidate", "champion"]
    assert {check["name"] for check in second["checks"]} > {
        "champion_agreement (judge: rules)", "champion_over_refusal (judge: rules)"
    }  # fmt: skip
    third, three = run_stage(worse, "twice", monkeypatch, tmp_path)
    assert failed(third) == ["champion_agreement (judge: rules)"]
    assert three["aliases"] == ["candidate"]


def test_the_headline_judge_is_the_one_that_counts():
    good = judged(0.8)
    by_other = {"headline": {"agreement": {"judge": "classifier"}}}
    report, *_ = pass_gate(good, "headline", by_other)
    assert "agreement_gain" in failed(report)
    assert "only by other judges (rules)" in report["reasons"][0]


def test_a_required_audit_that_was_not_made_fails_the_gate():
    report, *_ = pass_gate(judged(0.8), "audited", require_audit=True)
    assert failed(report) == ["audit"]


@pytest.mark.parametrize(("enforce", "good"), [(True, False), (True, True), (False, False)])
def test_a_failed_gate_is_an_error_only_where_it_is_enforced(enforce, good):
    report, _, parameters = pass_gate(judged(0.8 if good else 0.05), "enforced", enforce=enforce)
    assert report["passed"] == good
    if enforce and not good:
        with pytest.raises(
            PromotionError, match=r"agreement_gain: agreement, regulated \(judge: rules, n = 154\)"
        ):
            nodes.enforce_gate(report, {}, "", parameters)
    else:
        nodes.enforce_gate(report, {}, "", parameters)


def test_the_gate_is_enforced_after_everything_is_written():
    pipeline = create_pipeline()
    groups = [[node.name for node in group] for group in pipeline.grouped_nodes]
    assert groups[-1] == ["promotion.enforce_gate"]
    needed = pipeline.to_nodes("promotion.enforce_gate")
    assert {"report", "summary", "registered_model", "gate_report"} <= needed.all_outputs()
