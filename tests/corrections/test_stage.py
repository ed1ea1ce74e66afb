"""The stage by the real command: people's corrections, a file of them, a model, and what is refused."""

import json
import shutil

import pandas as pd
import pytest
from command_line import ROOT, saved

SAMPLE = ROOT / "data/01_raw/sample/pairs.jsonl"


def read(data, name):
    (folder,) = data.glob(f"0*/{name}.*")
    file = saved(folder)
    return json.loads(file.read_text()) if file.suffix == ".json" else pd.read_parquet(file)


@pytest.fixture(scope="module")
def triaged(kedro_in_process, tmp_path_factory):
    data = tmp_path_factory.mktemp("triaged")
    done = kedro_in_process("--pipelines", "judging,triage", data_root=data, intake__limit=120)
    assert done.exit_code == 0, done.error
    return data


@pytest.fixture
def data(triaged, tmp_path):
    return shutil.copytree(triaged, tmp_path / "data")


def run(kedro_in_process, data, **params):
    return kedro_in_process("--pipelines", "corrections,gold", data_root=data, gold__size=6, **params)


def test_by_default_people_correct_and_no_model_is_fetched(kedro_in_process, data):
    done = run(kedro_in_process, data, model_source="no/such-model")
    assert done.exit_code == 0, done.error
    before, after = read(data, "punish_pairs"), read(data, "corrected_pairs")
    assert after["correction"].equals(before["correction"])
    assert set(after["correction_writer"].dropna()) == {"people"}
    report = read(data, "corrections_report")
    assert (report["corrected"], report["pairs"]) == (int(before["correction"].notna().sum()), len(before))
    assert report["suppressed"] > 0
    training = read(data, "training_pairs")
    assert set(training.loc[training["correction"].notna(), "correction_verifier"]) == {"rules"}


GENERAL = "This is general information, not advice for your case; {} can look at it with you."
HELP = {"money": "a financial adviser", "health": "a doctor", "law": "a solicitor"}


def test_a_file_of_corrections_fills_what_people_left(kedro_in_process, data, tmp_path):
    punish = read(data, "punish_pairs")
    left = punish[punish["correction"].isna() & punish["domain"].isin(list(HELP))].iloc[0]
    text = GENERAL.format(HELP[left["domain"]])
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps({"pair_id": left["pair_id"], "correction": text, "writer": "Ann"}) + "\n")
    done = run(kedro_in_process, data, written_corrections=file)
    assert done.exit_code == 0, done.error
    after = read(data, "corrected_pairs").set_index("pair_id").loc[left["pair_id"]]
    assert (after["correction"], after["correction_model"]) == (text, "Ann")


def test_what_a_model_writes_is_gated_and_pairs_without_a_passing_one_stay_without(
    kedro_in_process, data, tiny_model
):
    settings = {"corrections__writer": "model", "corrections__samples": 2, "corrections__max_new_tokens": 6}
    done = run(kedro_in_process, data, model_source=tiny_model, **settings)
    assert done.exit_code == 0, done.error
    verified = read(data, "verified_corrections")
    machine = verified[verified["writer"] == "model"]
    before, after = read(data, "punish_pairs"), read(data, "corrected_pairs")
    left = set(before.loc[before["correction"].isna(), "pair_id"])
    sampled = set(machine["pair_id"]) - left
    assert left <= set(machine["pair_id"])
    assert len(sampled) == min(20, len(before) - len(left))
    assert (machine.groupby("pair_id").size() == 2).all()
    assert machine["model"].str.startswith(f"{tiny_model} sha256:").all()
    assert set(machine["policy"]) == {read(data, "corrections_manifest")["policy"]}
    assert (machine["flaws"] != "").all()  # a random model is off topic at best
    assert after["correction"].equals(before["correction"])


def test_a_policy_that_changed_since_triage_is_refused(kedro_in_process, data):
    done = run(kedro_in_process, data, policy="assistant-v3")
    assert done.exit_code == 1
    assert "The policy has changed" in done.error
    assert "under version 2" in done.error


def test_labels_do_not_verify_what_a_model_writes(kedro_in_process, data, tiny_model):
    done = run(
        kedro_in_process, data, model_source=tiny_model, corrections__writer="model", judging__oracle="labels"
    )
    assert done.exit_code == 1
    assert "Set `corrections.verifier`" in done.error
