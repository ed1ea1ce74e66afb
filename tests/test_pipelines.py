"""The stages before the first model, by the real command: rerun, mixed, repeated."""

import json
from types import SimpleNamespace

import pandas as pd
import pytest
from command_line import kedro, latest_run, saved, versions

SPLITS = [f"03_primary/{name}_pairs.parquet" for name in ("invert", "punish", "retain", "review")]
PARTS = [f"05_model_input/{name}.parquet" for name in ("held_out_pairs", "gold_batch", "training_pairs")]


def read(data, entry, version=None):
    return pd.read_parquet(saved(data / entry, version))


@pytest.fixture(scope="module")
def twice(kedro_in_process, tmp_path_factory):
    """Two runs in one process: 48 pairs of the sample, then another 30 of them."""
    data = tmp_path_factory.mktemp("data")
    stages = ("--pipelines", "judging,triage,corrections,gold")
    first = kedro_in_process(*stages, data_root=data)
    first_run = latest_run("corrections+gold+judging+triage")
    second = kedro_in_process(*stages, data_root=data, seed=1, intake__limit=30)
    assert (first.exit_code, second.exit_code) == (0, 0), first.error + second.error
    old, new = versions(data / SPLITS[0])
    return SimpleNamespace(
        data=data, old=old, new=new, runs=[first_run, latest_run("corrections+gold+judging+triage")]
    )


def test_the_splits_are_the_pairs_each_once(twice):
    for version, number in ((twice.old, 48), (twice.new, 30)):
        pairs = read(twice.data, "02_intermediate/pairs.parquet", version)
        ids = [pair_id for split in SPLITS for pair_id in read(twice.data, split, version)["pair_id"]]
        assert sorted(ids) == sorted(pairs["pair_id"])
        assert len(ids) == number


def test_the_parts_are_what_was_triaged_each_once(twice):
    triaged = [pair_id for split in SPLITS[:3] for pair_id in read(twice.data, split, twice.old)["pair_id"]]
    parts = [pair_id for part in PARTS for pair_id in read(twice.data, part, twice.old)["pair_id"]]
    assert sorted(parts) == sorted(triaged)


def test_every_run_in_one_process_is_an_mlflow_run_of_its_own_that_finished(twice):
    first, second = twice.runs
    assert first.info.run_id != second.info.run_id
    for run, version, rows in ((first, twice.old, 48), (second, twice.new, 30)):
        assert run.info.status == "FINISHED"
        assert run.data.tags["kedro.run_id"] == version
        inputs = {item.dataset.name: item for item in run.inputs.dataset_inputs}
        assert json.loads(inputs["pairs"].dataset.profile) == {"num_rows": rows}
        assert {tag.key: tag.value for tag in inputs["invert_pairs"].tags}["kedro.version"] == version


def test_a_stage_runs_again_from_what_the_one_before_it_left(twice, kedro_in_process, tmp_path):
    assert kedro_in_process("--pipelines", "gold", data_root=twice.data, seed=1).exit_code == 0
    again = versions(twice.data / PARTS[0])[-1]
    assert again != twice.new
    for part in PARTS:
        pd.testing.assert_frame_equal(read(twice.data, part, again), read(twice.data, part, twice.new))


def test_another_seed_draws_another_gold_batch_from_the_same_splits(twice, kedro_in_process):
    assert kedro_in_process("--pipelines", "gold", data_root=twice.data, seed=2).exit_code == 0
    drawn, former = read(twice.data, PARTS[1]), read(twice.data, PARTS[1], twice.new)
    assert len(drawn) == len(former)
    assert set(drawn["pair_id"]) != set(former["pair_id"])


def test_a_split_of_another_run_is_refused_by_its_digest(twice, kedro_in_process):
    mixed = kedro_in_process(
        "--pipelines", "gold", "--load-versions", f"invert_pairs:{twice.old}", data_root=twice.data
    )
    assert mixed.exit_code == 1
    assert (
        "invert_pairs and `corrections_manifest` come from different runs of the stage 'corrections'"
        in mixed.error
    )


def test_an_old_run_is_loaded_again_by_its_versions(twice, kedro_in_process):
    entries = ["invert_pairs", "punish_pairs", "retain_pairs", "review_pairs"]
    entries += ["corrected_pairs", "corrections_manifest", "triage_manifest"]
    pinned = ",".join(f"{entry}:{twice.old}" for entry in entries)
    done = kedro_in_process("--pipelines", "gold", "--load-versions", pinned, data_root=twice.data)
    assert done.exit_code == 0, done.error
    for part in PARTS:
        pd.testing.assert_frame_equal(read(twice.data, part), read(twice.data, part, twice.old))


def test_judgments_of_other_pairs_are_refused(twice, kedro_in_process):
    mixed = kedro_in_process(
        "--pipelines", "triage", "--load-versions", f"judgments:{twice.old}", data_root=twice.data
    )
    assert mixed.exit_code == 1
    assert "judgments and `judging_manifest` come from different runs" in mixed.error


def test_the_policy_and_its_difference_are_kept_with_the_run(twice):
    run, _ = twice.runs
    assert (run.data.tags["policy.version"], run.data.tags["old_policy.version"]) == ("2", "1")
    assert len(run.data.tags["policy.digest"]) == 64
    difference = pd.read_csv(saved(twice.data / "08_reporting/policy_diff.csv", twice.old))
    assert set(difference["change"]) <= {"added", "removed", "changed"}
    assert len(difference)


def test_the_deprecated_option_for_one_pipeline_is_accepted(kedro_in_process, tmp_path):
    done = kedro_in_process("--pipeline", "realign", "--to-nodes", "judging.judge_pairs", data_root=tmp_path)
    assert done.exit_code == 0, done.error
    assert len(read(tmp_path, "02_intermediate/judgments.parquet")) >= 2 * 48


@pytest.mark.slow
def test_the_command_works_from_a_process_of_its_own(tmp_path):
    done = kedro("--pipelines", "judging,triage", data_root=tmp_path)
    assert done.exit_code == 0, done.output
    assert "Pipeline execution completed successfully" in " ".join(done.output.split())
