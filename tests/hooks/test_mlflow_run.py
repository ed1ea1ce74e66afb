"""What a run leaves in a real MLflow database."""

import logging
import os
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from kedro.pipeline import Node
from mlflow_store import client, tracking_uri
from tiny_project import STAGES, find_run, make_project, run

from realignment.records import DataError, digest_table
from realignment.tracking.run import MlflowConfig, TrackingError


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    project = make_project(tmp_path_factory.mktemp("project"))
    run(project, "triage", "training", version="finished")
    return find_run("finished"), project


def test_a_run_finishes_with_flat_parameters_and_long_values_split(finished):
    mlflow_run, _ = finished
    assert mlflow_run.info.status == "FINISHED"
    assert mlflow_run.data.params["triage.min_confidence"] == "0.7"
    assert mlflow_run.data.params["triage.note"] + mlflow_run.data.params["triage.note.part2"] == "x" * 7000


def test_tags_tell_policy_pipelines_command_and_packages(finished):
    tags = finished[0].data.tags
    assert (tags["policy.name"], tags["policy.version"], len(tags["policy.digest"])) == ("advice", "2", 64)
    assert tags["kedro.pipelines"] == "training+triage"
    assert tags["environment.mlflow"] == mlflow.__version__
    assert "pytest" in tags["kedro.command"]


def test_numbers_of_reports_become_metrics_with_legal_names(finished):
    metrics = {
        key: value for key, value in finished[0].data.metrics.items() if key.startswith("triage_report")
    }
    assert metrics == {
        "triage_report/counts.RETAIN": 2, "triage_report/counts.INVERT _odd_": 0,
        "triage_report/interval.0": 0.25, "triage_report/interval.1": 0.75, "triage_report/passed": 1,
    }  # fmt: skip


def test_a_history_keeps_every_step(finished):
    history = client().get_metric_history(finished[0].info.run_id, "training_history/loss")
    assert len(history) == 1200
    assert {point.step: point.value for point in history}[99] == pytest.approx(0.01)


def test_tables_are_dataset_inputs_with_their_digest_and_version(finished):
    mlflow_run, project = finished
    inputs = {item.dataset.name: item for item in mlflow_run.inputs.dataset_inputs}
    assert set(inputs) == {"raw_pairs", "kept_pairs"}
    tags = {tag.key: tag.value for tag in inputs["kept_pairs"].tags}
    saved = project / "data/kept.parquet/finished/kept.parquet"
    assert tags["sha256"] == digest_table(pd.read_parquet(saved))
    assert tags["sha256"].startswith(inputs["kept_pairs"].dataset.digest)
    assert (tags["kedro.version"], tags["mlflow.data.context"], tags["path"]) == (
        "finished",
        "training",
        str(saved),
    )
    assert inputs["kept_pairs"].dataset.profile == '{"num_rows": 2}'


def test_artifacts_are_the_files_as_saved_beside_the_database(finished):
    mlflow_run, _ = finished
    run_id = mlflow_run.info.run_id
    assert [file.path for file in client().list_artifacts(run_id, "tables")] == ["tables/history.csv"]
    assert [file.path for file in client().list_artifacts(run_id, "policy")] == ["policy/policy.yaml"]
    requirements = Path(client().download_artifacts(run_id, "environment/requirements.txt")).read_text()
    assert f"mlflow=={mlflow.__version__}" in requirements
    assert (
        Path(tracking_uri().removeprefix("sqlite:///")).parent / "mlartifacts"
        in Path(mlflow_run.info.artifact_uri.removeprefix("file://")).parents
    )


def test_a_later_run_logs_the_version_that_it_loads(project):
    run(project, "triage", version="first")
    run(project, "training", version="second")
    (kept,) = find_run("second").inputs.dataset_inputs
    assert {tag.key: tag.value for tag in kept.tags}["kedro.version"] == "first"


def test_a_failing_node_fails_the_run_with_its_message(project):
    run(project, "triage", version="before-failure")
    with pytest.raises(DataError):
        run(project, "failing", version="failing")
    mlflow_run = find_run("failing")
    assert mlflow_run.info.status == "FAILED"
    error = mlflow_run.data.tags["error"]
    assert error == "DataError: Found the end [/INST] of a prompt, expected none: remove it."
    assert "MLFLOW_RUN_ID" not in os.environ


def test_children_see_the_run_while_it_lasts(project, monkeypatch):
    seen = {}
    monkeypatch.setitem(
        STAGES, "looking", Node(lambda raw: seen.update(os.environ) or raw, "raw_pairs", "kept_pairs")
    )
    run(project, "looking", version="looking")
    assert seen["MLFLOW_RUN_ID"] == find_run("looking").info.run_id
    assert seen["MLFLOW_TRACKING_URI"] == tracking_uri() == os.environ["MLFLOW_TRACKING_URI"]
    assert "MLFLOW_RUN_ID" not in os.environ


def test_an_active_run_is_used_and_left_open(project, monkeypatch):
    experiment = client().get_experiment_by_name("tests") or client().create_experiment("tests")
    outer = client().create_run(getattr(experiment, "experiment_id", experiment))
    monkeypatch.setenv("MLFLOW_RUN_ID", outer.info.run_id)
    run(project, "triage", version="joined")
    mlflow_run = find_run("joined")
    assert (mlflow_run.info.run_id, mlflow_run.info.status) == (outer.info.run_id, "RUNNING")
    assert os.environ["MLFLOW_RUN_ID"] == outer.info.run_id


def test_a_failing_mlflow_warns_once_and_loses_nothing(project, monkeypatch, caplog):
    def full_disk(*_args, **_kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr("mlflow.MlflowClient.log_batch", full_disk)
    monkeypatch.setattr("mlflow.MlflowClient.log_artifact", full_disk)
    with caplog.at_level(logging.WARNING, logger="realignment"):
        run(project, "triage", "training", version="full")
    assert (project / "data/history.csv").is_file()
    warnings = [record.getMessage() for record in caplog.records if "could not log" in record.getMessage()]
    assert len(warnings) == 1
    assert "No space left on device" in warnings[0]


def test_an_mlflow_that_does_not_answer_at_the_start_stops_before_any_node(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError, match=r"127\.0\.0\.1:9 cannot be used(.|\n)*switch MLflow off"):
        run(project, "triage", version="unreachable")
    assert not (project / "data/kept.parquet").exists()


def test_wrong_metadata_and_wrong_configuration_name_their_place(project):
    (project / "conf/local/mlflow.yml").write_text("enabeld: true\n")
    with pytest.raises(TrackingError, match=r"mlflow\.yml is not valid(.|\n)*enabeld"):
        run(project, "triage", version="typo")
    (project / "conf/local/mlflow.yml").write_text("enabled: true\n")
    catalog = (project / "conf/base/catalog.yml").read_text()
    (project / "conf/base/catalog.yml").write_text(catalog.replace("{history: true", "{histroy: true"))
    with pytest.raises(TrackingError, match=r"'training_history'(.|\n)*histroy"):
        run(project, "triage", "training", version="typo")


def test_switched_off_nothing_is_logged(project):
    (project / "conf/local/mlflow.yml").write_text("enabled: false\n")
    run(project, "triage", version="off")
    with pytest.raises(ValueError, match="not enough values"):
        find_run("off")


def test_the_default_database_lies_in_the_project_wherever_one_stands(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert MlflowConfig().absolute_uri(Path("/project")) == "sqlite:////project/mlflow.db"
    assert MlflowConfig(tracking_uri="sqlite:///a/b.db").absolute_uri(Path("/p")) == "sqlite:////p/a/b.db"
    assert MlflowConfig(tracking_uri="sqlite:////abs.db").absolute_uri(Path("/p")) == "sqlite:////abs.db"
    assert MlflowConfig(tracking_uri="http://host:5000").absolute_uri(Path("/p")) == "http://host:5000"
