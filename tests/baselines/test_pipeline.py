"""The pipeline `baselines` by the real command: cells, table, page, child runs; no cell twice."""

import json

import pandas as pd
import pytest
from command_line import ROOT, kedro, latest_run, saved
from mlflow_store import client

from realignment.methods import MethodError
from realignment.parameters import BaselinesParameters
from realignment.pipelines.baselines import nodes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def compare(tmp_path_factory, tiny_model):
    data = tmp_path_factory.mktemp("data")

    def call(**options):
        chosen = {
            "methods": ["reference", "sft", "oracle-dpo"],
            "seeds": [1],
            "isolate": False,
            "set": {"training_pairs": 24, "held_out_pairs": 8, "prompts_limit": 3, "held_out_share": 0.5},
            "overrides": {"gold": {"size": 3}},
        }
        recipe = {
            "pipelines": "baselines",
            "env": "test",
            "params": {
                "data_root": str(data),
                "model_source": str(tiny_model),
                "baselines": chosen | options,
            },
        }
        file = tmp_path_factory.mktemp("recipe") / "recipe.json"
        file.write_text(json.dumps({"run": recipe}))
        return kedro("--config", str(file)), data

    return call


def read(data, name):
    return saved(data / "08_reporting" / name)


def test_methods_are_compared_by_one_command_and_only_new_cells_are_trained(compare):
    outcome, data = compare()
    assert outcome.exit_code == 0, outcome.output
    cells = pd.read_csv(read(data, "baseline_cells.csv"))
    assert cells["status"].tolist() == ["done"] * 3
    table = pd.read_csv(read(data, "baseline_table.csv"))
    assert set(table["method"]) == {"reference", "sft", "oracle-dpo"}
    page = read(data, "baselines.md").read_text()
    assert "3 of 3 cells" in page
    assert "| oracle-dpo" in page
    children = client().search_runs(
        [latest_run("baselines").info.experiment_id],
        f"tags.`mlflow.parentRunId` = '{latest_run('baselines').info.run_id}'",
    )
    assert {run.data.params["method"] for run in children} == set(table["method"])
    assert all(run.info.status == "FINISHED" for run in children)
    assert all(run.data.metrics["seconds"] > 0 for run in children)
    files = {file: file.stat().st_mtime_ns for file in (data / "08_reporting/baseline_cells").iterdir()}
    outcome, _ = compare(methods=["reference", "sft", "oracle-dpo", "npo-retain"])
    assert outcome.exit_code == 0, outcome.output
    after = {file: file.stat().st_mtime_ns for file in (data / "08_reporting/baseline_cells").iterdir()}
    assert after.items() >= files.items()
    assert len(after) == 4


def test_without_training_missing_cells_are_named(compare):
    outcome, data = compare(seeds=[1, 2], only_finished=True)
    assert outcome.exit_code == 0, outcome.output
    assert "are missing" in read(data, "baselines.md").read_text()


def test_a_method_for_the_whole_run_is_refused():
    parameters = BaselinesParameters(methods=["sft"], methods_folder=str(ROOT), cells_folder="x")
    empty = pd.DataFrame()
    with pytest.raises(MethodError, match=r"from `baselines\.methods`; found `method=sft`"):
        nodes.run_cells(
            empty, empty, empty, {}, empty, empty, None, {}, None, None, None, None, None, None, None, "sft",
            parameters, "work", 0,
        )  # fmt: skip
