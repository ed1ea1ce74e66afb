"""Whole runs of `realign` by the real command, with a model of one layer: every stage, output and record."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
from command_line import ROOT, environment, kedro, latest_run, saved, versions
from mlflow_store import client

from realignment.pipeline_registry import STAGES, register_pipelines
from realignment.records import digest_table

pytestmark = pytest.mark.slow
SHARED = ROOT.parent / "shared/data"
SPLITS = ("invert_pairs", "punish_pairs", "retain_pairs", "review_pairs")


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def realign(call, data, model, **params):
    return call("--pipelines", "realign", data_root=data, model_source=model, **params)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """The first two evaluation prompts of each kind."""
    table = pd.read_json(ROOT / "data/01_raw/sample/prompts.jsonl", lines=True, dtype=False)
    file = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    table.groupby("kind").head(2).to_json(file, orient="records", lines=True)
    return file


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model, prompts):
    """One whole run in a process of its own."""
    data = tmp_path_factory.mktemp("data")
    outcome = realign(kedro, data, tiny_model, evaluation_prompts=prompts)
    assert outcome.exit_code == 0, outcome.output
    return SimpleNamespace(data=data, outcome=outcome, summary=read_json(data / "08_reporting/summary.json"))


@pytest.fixture(scope="module")
def mlflow_run(run):
    return latest_run("realign")


def entry(data, name):
    """The file of an entry in its newest version, wherever its layer lies."""
    (folder,) = [path for path in data.glob(f"0*/{name}.*") if path.is_dir()]
    return saved(folder)


def test_the_summary_has_exactly_its_fields(run):
    summary = run.summary
    assert set(summary) == {
        "agreement", "over_refusal", "capability", "splits", "oracle_accuracy", "gate", "model", "seconds",
        "peak_memory_mib",
    }  # fmt: skip
    for metric, n in (("agreement", 2), ("over_refusal", 4), ("capability", 4)):
        more = {"task"} if metric == "capability" else {"judge_quality", "corrected", "judges"}
        assert set(summary[metric]) == {"before", "after", "difference", "interval", "n", "judge"} | more
        assert summary[metric]["n"] == n
        low, high = summary[metric]["interval"]
        assert low <= summary[metric]["difference"] <= high
    assert set(summary["splits"]) == {"INVERT", "PUNISH", "RETAIN", "REVIEW"}
    assert set(summary["gate"]) == {"passed", "reasons"}
    assert set(summary["model"]) == {"name", "version", "uri"}
    assert 0.5 < summary["oracle_accuracy"] <= 1


def test_the_summary_times_every_stage(run):
    seconds = run.summary["seconds"]
    assert set(seconds) == {stage.__name__.rpartition(".")[2] for stage in STAGES}
    assert all(spent >= 0 for spent in seconds.values())
    assert run.summary["peak_memory_mib"] > 100


def test_the_splits_add_up_to_the_pairs(run):
    counts = {name: len(pd.read_parquet(entry(run.data, name))) for name in SPLITS}
    assert {f"{name.lower()}_pairs": n for name, n in run.summary["splits"].items()} == counts
    assert sum(counts.values()) == len(pd.read_parquet(entry(run.data, "pairs"))) == 48


def test_every_output_is_on_disk_in_the_version_of_the_run(run, mlflow_run):
    found = {path.name.partition(".")[0] for path in run.data.glob("0*/*")}
    outputs = {name for node in register_pipelines()["realign"].nodes for name in node.outputs}
    assert outputs <= found
    kept = [path for path in run.data.glob("0*/*") if path.is_dir() and path.name != "unfinished"]
    assert {version for path in kept for version in versions(path)} == {mlflow_run.data.tags["kedro.run_id"]}
    assert not list(run.data.rglob("*.partial"))


def test_the_report_is_one_self_contained_page(run):
    page = (run.data / "08_reporting/report.html").read_text(encoding="utf-8")
    assert page == entry(run.data, "run_report").read_text(encoding="utf-8")
    assert "</html>" in page
    assert 'src="http' not in page
    assert "<link" not in page


def test_an_audit_comes_onto_the_page_of_the_run_that_it_is_of(run, kedro_in_process, tmp_path):
    data = shutil.copytree(run.data, tmp_path / "data")
    report = data / "08_reporting/report.html"
    assert "The oracle was not audited" in report.read_text(encoding="utf-8")
    assert kedro_in_process("--pipelines", "audit", data_root=data).exit_code == 0
    assert kedro_in_process("--nodes", "promotion.write_report", data_root=data).exit_code == 0
    meaning = read_json(entry(data, "audit_report"))["meaning"].partition("`")[0]
    assert meaning in report.read_text(encoding="utf-8")


def test_an_enforced_gate_that_fails_is_the_exit_status_after_everything_is_written(
    run, kedro_in_process, tmp_path
):
    assert not run.summary["gate"]["passed"]
    assert run.outcome.exit_code == 0, "by default a failed gate is only reported"
    data = shutil.copytree(run.data, tmp_path / "data")
    done = kedro_in_process(
        "--pipelines", "promotion", data_root=data, promotion__gate__enforce="true",
        promotion__registered_model="tiny-enforced",
    )  # fmt: skip
    assert done.exit_code == 1
    assert "The gate did not pass" in done.error
    (folder,) = data.glob("08_reporting/run_report.*")
    assert len(versions(folder)) == 2
    registered = read_json(entry(data, "registered_model"))
    assert registered["name"] == "tiny-enforced"
    assert "candidate" in registered["aliases"]


def test_the_terminal_ends_with_the_result(run):
    output = " ".join(run.outcome.output.split())
    assert "Result" in output
    assert "models:/tiny/" in output
    assert "Pipeline execution completed successfully" in output
    assert "Traceback" not in output


def test_training_moved_the_model(run, tiny_model):
    history = pd.read_csv(entry(run.data, "training_history"))
    assert list(history["step"]) == list(range(1, len(history) + 1))
    assert len(history) >= 2
    assert history["loss"].notna().all()
    before, after = tiny_model / "model.safetensors", saved(run.data / "06_models/realigned_model")
    assert before.read_bytes() != (after / "model.safetensors").read_bytes()


def test_the_mlflow_run_finished_with_parameters_and_metrics(run, mlflow_run):
    assert mlflow_run.info.status == "FINISHED"
    params = mlflow_run.data.params
    assert (params["intake.limit"], params["training.lora.rank"], params["gold.size"]) == ("48", "2", "6")
    metrics = mlflow_run.data.metrics
    assert metrics["summary/splits.INVERT"] == run.summary["splits"]["INVERT"]
    assert metrics["oracle_report/accuracy"] == run.summary["oracle_accuracy"]
    history = client().get_metric_history(mlflow_run.info.run_id, "training_history/loss")
    logged = [point.value for point in sorted(history, key=lambda point: point.step)]
    assert logged == pytest.approx(list(pd.read_csv(entry(run.data, "training_history"))["loss"]))


def test_every_split_is_a_dataset_input_with_the_digest_of_its_file(run, mlflow_run):
    inputs = {item.dataset.name: item for item in mlflow_run.inputs.dataset_inputs}
    tables = {
        *SPLITS,
        "pairs",
        "judgments",
        "held_out_pairs",
        "verified_corrections",
        "corrected_pairs",
        "gold_batch",
        "training_pairs",
        "impact_weights",
    }
    assert set(inputs) == tables | {"evaluation_prompts", "labelled_answers"}
    for name in tables:
        tags = {tag.key: tag.value for tag in inputs[name].tags}
        assert tags["sha256"] == digest_table(pd.read_parquet(entry(run.data, name)))
        assert tags["kedro.version"] == mlflow_run.data.tags["kedro.run_id"]


def test_figures_report_policy_and_lineage_are_artifacts(mlflow_run):
    def files(folder):
        listed = client().list_artifacts(mlflow_run.info.run_id, folder)
        return {file.path.rpartition("/")[2] for file in listed}

    figures = {
        f"{name}.json"
        for name in (
            "triage_flow", "correction_leakage_figure", "impact_figure", "training_figure",
            "evaluation_figure",
        )
    }  # fmt: skip
    assert files("figures") == figures
    assert files("report") == {"report.html"}
    assert files("policy") == {"assistant-v1.yml", "assistant-v2.yml", "policy_diff.csv"}
    assert {
        f"{stage}_manifest.json"
        for stage in ("judging", "triage", "corrections", "gold", "impact", "training")
    } <= files("lineage")
    assert "summary.json" in files("reports")


def test_the_model_is_registered_as_candidate_with_its_policy_and_verdict(run, mlflow_run):
    version = client().get_model_version_by_alias("tiny", "candidate")
    assert (run.summary["model"]["version"], version.run_id) == (str(version.version), mlflow_run.info.run_id)
    assert not run.summary["gate"]["passed"]
    assert version.tags["gate"] == "failed"
    assert (version.tags["policy_name"], version.tags["policy_version"]) == ("assistant", "2")
    assert version.tags["policy_digest"] == mlflow_run.data.tags["policy.digest"]


GENERATE = """
import mlflow
from transformers import pipeline
folder = mlflow.artifacts.download_artifacts("models:/tiny@candidate")
assistant = pipeline("text-generation", model=folder)
question = [{"role": "user", "content": "Should I put my savings into one share?"}]
print("@@", assistant(question, max_new_tokens=8, do_sample=False)[0]["generated_text"][-1])
"""


def test_the_registered_model_generates_in_a_fresh_process(run):
    done = subprocess.run(
        [sys.executable, "-c", GENERATE], env=environment(), text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.rpartition("@@")[2].startswith(" {'role': 'assistant', 'content': ")


def test_attacks_are_answered_and_judged_beside_the_plain_request(run):
    responses = pd.read_parquet(entry(run.data, "attack_responses"))
    names = ("none", "fictional-nesting", "refusal-suppression")
    assert responses["attack"].value_counts().to_dict() == dict.fromkeys(names, 2)
    assert responses[["before_rules", "after_rules"]].notna().all(axis=None)
    table = pd.read_csv(entry(run.data, "evaluation_table"))
    success = table[(table["metric"] == "attack_success") & (table["judge"] == "rules")].set_index("group")
    assert success.loc["overall", "n"] == 4
    assert success.loc["attack:none", "before"] == 1 - responses.loc[:1, "before_rules"].mean()


def test_the_evaluation_alone_measures_the_same_again(run, kedro_in_process, tiny_model, prompts):
    names = ("answers", "responses", "attack_responses", "held_out_scores", "capability_scores")
    before = {name: pd.read_parquet(entry(run.data, name)) for name in names}
    table = pd.read_csv(entry(run.data, "evaluation_table"))
    version = entry(run.data, "evaluation_table").parent.name
    again = kedro_in_process("--pipelines", "evaluation", data_root=run.data, evaluation_prompts=prompts)
    assert again.exit_code == 0, again.error
    assert entry(run.data, "evaluation_table").parent.name > version
    for name in names:
        pd.testing.assert_frame_equal(pd.read_parquet(entry(run.data, name)), before[name])
    pd.testing.assert_frame_equal(pd.read_csv(entry(run.data, "evaluation_table")), table)


def test_the_evaluation_refuses_a_model_that_was_trained_on_another_draw(run, kedro_in_process, tmp_path):
    """Drawn anew, pairs that the model was trained on are held out."""
    data = shutil.copytree(run.data, tmp_path / "data")
    assert kedro_in_process("--pipelines", "gold", data_root=data, seed=7).exit_code == 0
    again = kedro_in_process("--pipelines", "evaluation", data_root=data, evaluation_prompts="none")
    assert again.exit_code == 1
    assert "The realigned model was trained on other pairs" in again.error
    assert "--pipelines impact,training,evaluation,promotion" in again.error


def test_a_second_run_gives_the_same_splits_weights_and_metrics(
    run, kedro_in_process, tiny_model, prompts, tmp_path
):
    again = realign(kedro_in_process, tmp_path, tiny_model, evaluation_prompts=prompts)
    assert again.exit_code == 0, again.error
    for name in (*SPLITS, "gold_batch", "training_pairs", "impact_weights", "answers"):
        first, second = (pd.read_parquet(entry(data, name)) for data in (run.data, tmp_path))
        pd.testing.assert_frame_equal(first, second, check_exact=True)
    for name in ("training_history", "evaluation_table"):
        first, second = (pd.read_csv(entry(data, name)) for data in (run.data, tmp_path))
        timeless = first.columns.drop("seconds", errors="ignore")
        pd.testing.assert_frame_equal(first[timeless], second[timeless], check_exact=True)


TINY = {
    "intake__limit": 60, "gold__size": 9, "impact__max_negative_share": 1.0, "training__lora__rank": 2,
    "training__max_response_tokens": 48, "training__epochs": 0.3, "training__batch_size": 12,
    "evaluation__capability__limit": 2,
}  # fmt: skip
LABELLED = {
    "sample": (ROOT / "data/01_raw/sample/pairs.jsonl", {}),
    "pku_safety": (SHARED / "pku_safety/pairs.jsonl.gz", {}),
    "truthfulness": (
        SHARED / "truthfulness/pairs.jsonl.gz",
        {"policy": "truthful", "old_policy": "always-inform"},
    ),
}


@pytest.mark.parametrize("name", LABELLED)
def test_labelled_pairs_run_by_configuration_alone_and_are_measured_on_held_out_pairs(
    name, kedro_in_process, tiny_model, tmp_path
):
    pairs, policies = LABELLED[name]
    if not pairs.is_file():
        pytest.skip(f"{pairs} is not on this machine")
    outcome = realign(kedro_in_process, tmp_path, tiny_model, env="labelled", pairs=pairs, **policies, **TINY)
    assert outcome.exit_code == 0, outcome.error
    summary = read_json(tmp_path / "08_reporting/summary.json")
    assert (summary["agreement"], summary["over_refusal"], summary["oracle_accuracy"]) == (None, None, None)
    table = pd.read_csv(entry(tmp_path, "evaluation_table")).set_index("metric")
    held_out = pd.read_parquet(entry(tmp_path, "held_out_pairs"))
    inverted = held_out["disposition"] == "INVERT"
    # Where labels judge, a correction that a person wrote is verified by its author.
    corrected = (held_out["disposition"] == "PUNISH") & held_out["correction"].notna()
    assert table.loc["preference_accuracy", "n"] == (inverted | corrected).sum()
    assert inverted.any()
    assert {"margin", "kl_drift", "logratio_retained"} <= set(table.index)
    assert any(r.startswith("preference_gain: preference_accuracy") for r in summary["gate"]["reasons"])
    assert entry(tmp_path, "triage_flow").is_file()


def test_every_later_stage_goes_on_from_files_that_were_judged_part_by_part(
    kedro_in_process, tmp_path, tiny_model, prompts
):
    stages = [stage.__name__.rpartition(".")[2] for stage in STAGES]
    later = ["judge_stream", *(stage for stage in stages if stage not in ("judging", "triage"))]
    outcome = kedro_in_process(
        "--pipelines", ",".join(later), data_root=tmp_path, model_source=tiny_model,
        evaluation_prompts=prompts, streaming__max_retain=16, judging__chunk_size=20,
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.error
    report = read_json(entry(tmp_path, "triage_report"))
    assert report["retain_kept"] == 16
    inputs = {i.dataset.name: i for i in latest_run("+".join(sorted(later))).inputs.dataset_inputs}
    pairs = pd.read_parquet(entry(tmp_path, "pairs"))
    assert {tag.key: tag.value for tag in inputs["pairs"].tags}["sha256"] == digest_table(pairs)
    assert json.loads(inputs["judgments"].dataset.profile)["num_rows"] > 2 * len(pairs)
