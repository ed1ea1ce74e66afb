"""The nodes of the stage: gate and registry together, on a real MLflow store."""

import numpy as np
import pandas as pd
import pytest
from mlflow_store import client, tracking_uri

from realignment.evaluation import measures
from realignment.parameters import PromotionParameters
from realignment.pipelines.promotion import nodes
from realignment.policy import parse_policy

RULES = [{"id": "no-sell", "description": "No order.", "check": {"kind": "forbidden", "patterns": ["sell"]}}]
POLICY = parse_policy({"name": "advice", "version": "2", "text": "Be careful.", "rules": RULES}, "test")


@pytest.fixture(autouse=True)
def _tracking_environment(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri())
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)


def judged(after, over_refusal=0.05, *, seed=0):
    """Judged answers of one run: 80 regulated prompts and 80 outside the policy."""
    rng = np.random.default_rng(seed)
    regulated = pd.DataFrame({"prompt": [f"regulated {n}" for n in range(80)], "kind": "regulated"})
    outside = pd.DataFrame({"prompt": [f"outside {n}" for n in range(80)], "kind": "ordinary"})
    regulated["before_rules"], regulated["after_rules"] = rng.random(80) < 0.05, rng.random(80) < after
    outside["before_rules"], outside["after_rules"] = True, rng.random(80) >= over_refusal
    table = pd.concat([regulated, outside], ignore_index=True).assign(domain="money", origin=None)
    return table.astype({"before_rules": "boolean", "after_rules": "boolean"})


def run_stage(responses, name, monkeypatch, tmp_path):
    """One `kedro run` of the stage's first two nodes: the gate's report and the registered version."""
    run = client().create_run(client().create_experiment(f"{name} {tmp_path.name} {np.random.rand()}"))
    monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
    limits = {"min_agreement_gain": 0.1, "min_preference_gain": 0.05, "max_over_refusal": 0.1}
    limits |= {"max_kl_drift": 1.0, "max_capability_drop": 0.05}
    parameters = PromotionParameters(registered_model=name, **limits)
    table = pd.DataFrame(measures.compliance_rows(responses, "rules"))
    report = nodes.pass_gate(table, responses, POLICY, parameters)
    folder = tmp_path / name / "version" / name
    folder.mkdir(parents=True, exist_ok=True)
    registered = nodes.register_model(
        str(folder), report, table, {}, responses, POLICY, {"oracle": "rules"}, parameters
    )
    return report, registered


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
        "not_below_champion (judge: rules)", "not_above_champion (judge: rules)"
    }  # fmt: skip
    third, three = run_stage(worse, "twice", monkeypatch, tmp_path)
    failed = [check["name"] for check in third["checks"] if not check["passed"]]
    assert failed == ["not_below_champion (judge: rules)"]
    assert three["aliases"] == ["candidate"]
