"""A tiny Kedro project for tests: real configuration, context, catalog, runner and hook manager."""

from pathlib import Path

import pandas as pd
from kedro.config import OmegaConfigLoader
from kedro.framework.context import KedroContext
from kedro.framework.hooks.manager import _create_hook_manager, _register_hooks
from kedro.pipeline import Node, Pipeline
from kedro.runner import SequentialRunner
from mlflow_store import client
from pydantic import BaseModel

from realignment.hooks import LoggingHooks, ParameterGuard, StageTimer
from realignment.hooks.mlflow_run import MlflowHooks
from realignment.records import DataError

CATALOG = """
raw_pairs:
  type: pandas.CSVDataset
  filepath: data/raw.csv
  metadata: {mlflow: {input: raw}}
policy:
  type: realignment.datasets.PolicyDataset
  filepath: conf/policy.yaml
  metadata: {mlflow: {artifact: policy}}
kept_pairs:
  type: realignment.datasets.ParquetDataset
  filepath: data/kept.parquet
  versioned: true
  metadata: {mlflow: {input: training}}
triage_report:
  type: realignment.datasets.JSONDataset
  filepath: ${runtime_params:data_root,data}/report.json
  versioned: true
  metadata: {mlflow: {metrics: true}}
training_history:
  type: realignment.datasets.CSVDataset
  filepath: data/history.csv
  save_args: {index: false}
  metadata: {mlflow: {history: true, artifact: tables}}
unused:
  type: spark.SparkDataset
  filepath: nowhere
"""
POLICY = """
{name: advice, version: "2", text: Be careful., rules: [
  {id: short, description: Short., check: {kind: length, max_words: 9}}]}
"""


class TriageParameters(BaseModel):
    min_confidence: float = 0.5
    note: str = ""


def keep(raw, policy, parameters: TriageParameters):
    counts = {"RETAIN": 2, "INVERT [odd]": 0, "nothing": None}
    return raw, {"counts": counts, "interval": [0.25, 0.75], "passed": True, "name": policy.name}


def train(kept):
    return pd.DataFrame({"step": range(1200), "loss": [1 / (step + 1) for step in range(1200)]})


def fail(kept):
    raise DataError("Found the end [/INST] of a prompt, expected none: remove it.")


STAGES = {
    "triage": Node(
        keep, ["raw_pairs", "policy", "params:triage"], ["kept_pairs", "triage_report"], namespace="triage"
    ),
    "training": Node(train, "kept_pairs", "training_history", namespace="training"),
    "failing": Node(fail, "kept_pairs", "never", namespace="training"),
}


def make_project(folder: Path) -> Path:
    (folder / "conf/base").mkdir(parents=True)
    (folder / "conf/local").mkdir()
    (folder / "conf/base/catalog.yml").write_text(CATALOG)
    (folder / "conf/base/parameters.yml").write_text(f"triage: {{min_confidence: 0.7, note: {'x' * 7000}}}\n")
    (folder / "conf/base/mlflow.yml").write_text("experiment: tests\n")
    (folder / "conf/policy.yaml").write_text(POLICY)
    (folder / "data").mkdir()
    (folder / "data/raw.csv").write_text("pair_id,prompt\na,Why?\nb,How?\n")
    return folder


def run(project: Path, *stages: str, version: str, params: dict | None = None, hooks: tuple | None = None):
    """What `KedroSession.run` does, without a project package that would stay configured for other tests."""
    manager = _create_hook_manager()
    _register_hooks(manager, hooks or (MlflowHooks(), StageTimer(), ParameterGuard(), LoggingHooks()))
    loader = OmegaConfigLoader(
        str(project / "conf"), runtime_params=params, base_env="base", default_run_env="local",
        config_patterns={"mlflow": ["mlflow*"]},
    )  # fmt: skip
    context = KedroContext(project, loader, None, "tests", manager, params)
    manager.hook.after_context_created(context=context)
    catalog = context._get_catalog(save_version=version)
    pipeline = Pipeline([STAGES[stage] for stage in stages], namespace=None)
    record = {
        "run_id": version, "pipeline_names": list(stages), "env": None, "kedro_version": "1",
        "runtime_params": params,
    }  # fmt: skip
    arguments = {"run_params": record, "pipeline": pipeline, "catalog": catalog}
    manager.hook.before_pipeline_run(**arguments)
    try:
        result = SequentialRunner().run(pipeline, catalog, manager, run_id=version)
    except Exception as error:
        manager.hook.on_pipeline_error(error=error, **arguments)
        raise
    manager.hook.after_pipeline_run(run_result=result, **arguments)


def find_run(version: str):
    experiment = client().get_experiment_by_name("tests")
    (run_of_version,) = client().search_runs([experiment.experiment_id], f"tags.`kedro.run_id` = '{version}'")
    return run_of_version
