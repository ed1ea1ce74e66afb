"""From the pairs to people and back, and how wrong the oracle is by their verdicts: the real commands."""

import json
from types import SimpleNamespace

import pandas as pd
import pytest
from command_line import ROOT, latest_run, saved

SPLITS = {
    name: f"03_primary/{name.lower()}_pairs.parquet" for name in ("INVERT", "PUNISH", "RETAIN", "REVIEW")
}
UNKNOWN = 6


@pytest.fixture(scope="module")
def truth():
    """Every response of the sample with its hand-set verdict."""
    table = pd.read_json(ROOT / "data/01_raw/sample/pairs.jsonl", lines=True, dtype=False)
    return {
        (row["prompt"], row[response]): row[f"{response}_complies"]
        for row in table.to_dict("records")
        for response in ("chosen", "rejected")
    }


def fill(form, truth, file, *, wrong=()):
    """A person's work: the verdicts of the truth, but for some."""
    table = pd.read_csv(form, keep_default_na=False)
    says = [truth[key] for key in zip(table["prompt"], table["response"], strict=True)]
    table["verdict"] = [
        "complies" if says_so != (place in wrong) else "violates" for place, says_so in enumerate(says)
    ]
    table.to_csv(file, index=False)


@pytest.fixture(scope="module")
def trip(kedro_in_process, tmp_path_factory, truth):
    """Judged by labels of which some are missing, exported, judged by two people, imported, audited."""
    folder = tmp_path_factory.mktemp("trip")
    data, people, pairs = folder / "data", folder / "people", folder / "pairs.jsonl"
    people.mkdir()
    table = pd.read_json(ROOT / "data/01_raw/sample/pairs.jsonl", lines=True, dtype=False).head(48)
    table["chosen_complies"] = table["chosen_complies"].astype(object)
    table.loc[table.index[::8], "chosen_complies"] = None
    table.to_json(pairs, orient="records", lines=True)
    params = {"data_root": data, "pairs": pairs, "audit__size": 24}

    def run(*pipelines, **more):
        return kedro_in_process("--pipelines", ",".join(pipelines), **(params | more))

    labels = {"judging__oracle": "labels"}
    outcomes = [run("judging", "triage", **labels), run("review_export", **labels)]
    assert all(outcome.exit_code == 0 for outcome in outcomes), [o.error for o in outcomes]
    form = saved(data / "08_reporting/review_table.csv")
    fill(form, truth, people / "ann.csv")
    fill(form, truth, people / "bo.csv", wrong={3})
    imported = run("review_import", verdicts=people)
    assert imported.exit_code == 0, imported.error
    return SimpleNamespace(data=data, people=people, run=run, form=form, labels=labels)


def read(trip, entry):
    return pd.read_parquet(saved(trip.data / entry))


def report(trip, entry):
    return json.loads(saved(trip.data / entry).read_text())


def test_people_are_asked_for_every_pair_in_review_and_for_the_audit_sample(trip):
    review = read(trip, SPLITS["REVIEW"])
    sample = read(trip, "03_primary/review_sample.parquet")
    assert len(review) == UNKNOWN
    asked = pd.read_csv(trip.form)
    texts = pd.concat([t[name] for t in (review, sample) for name in ("chosen", "rejected")])
    assert set(asked["response"]) == set(texts)
    assert asked["task_id"].is_unique


def test_every_form_has_the_same_tasks(trip):
    asked = set(pd.read_csv(trip.form)["task_id"])
    reporting = trip.data / "08_reporting"
    label_studio = json.loads(saved(reporting / "review_label_studio.json").read_text())
    argilla = json.loads(saved(reporting / "review_argilla.json").read_text())
    lines = saved(reporting / "review_table.jsonl").read_text().splitlines()
    assert {task["data"]["task_id"] for task in label_studio} == asked
    assert {record["id"] for record in argilla} == asked
    assert {json.loads(line)["task_id"] for line in lines} == asked


def test_the_report_says_who_judged_and_how_far_they_agree(trip):
    found = report(trip, "08_reporting/review_report.json")
    tasks = len(pd.read_csv(trip.form))
    assert {name: sum(words.values()) for name, words in found["by_annotator"].items()} == {
        "ann": tasks, "bo": tasks,
    }  # fmt: skip
    assert (found["verdicts"], found["ties"]) == (2 * tasks, 1)
    assert found["interval"][0] <= found["alpha"] <= found["interval"][1] <= 1
    assert 0.85 < found["alpha"] < 1


def test_the_human_oracle_decides_what_was_in_review(trip, kedro_in_process):
    before = set(read(trip, SPLITS["REVIEW"])["pair_id"])
    again = trip.run("judging", "triage", "corrections", judging__oracle="human", judging__max_unscored=1.0)
    assert again.exit_code == 0, again.error
    written = read(trip, SPLITS["PUNISH"])["pair_id"].map(
        read(trip, "02_intermediate/pairs.parquet").set_index("pair_id")["correction"]
    )
    corrected = read(trip, "03_primary/corrected_pairs.parquet")
    assert written.notna().sum() == corrected["correction"].notna().sum() > 0
    assert set(corrected["correction_verifier"].dropna()) == {"author"}
    decided = pd.concat([read(trip, SPLITS[name]) for name in ("INVERT", "PUNISH", "RETAIN")])
    assert len(before & set(decided["pair_id"])) >= UNKNOWN - 1  # one response may be the tie
    judgments = read(trip, "02_intermediate/judgments.parquet")
    assert set(judgments["oracle"]) == {"human"}
    restored = trip.run("judging", "triage", **trip.labels)
    assert restored.exit_code == 0, restored.error


def test_the_audit_measures_the_oracle_by_the_verdicts_of_people(trip):
    done = trip.run("audit", audit__truth="people", **trip.labels)
    assert done.exit_code == 0, done.error
    found = report(trip, "03_primary/audit_report.json")
    assert (found["truth"], found["oracle"]) == ("people", "labels")
    assert found["n"] + found["without_truth"] == 24
    assert found["without_truth"] <= 1
    assert found["misrouted"]["share"] <= 0.1
    run = latest_run("audit")
    assert run.data.metrics["audit_report/misrouted.share"] == pytest.approx(found["misrouted"]["share"])
    assert run.data.metrics["audit_history/misrouted"] == pytest.approx(found["misrouted"]["share"])


def test_an_audit_by_people_who_judged_other_pairs_says_that_they_have_not(trip):
    other = trip.run("audit", audit__truth="people", audit__size=48, **trip.labels)
    assert other.exit_code == 0, other.error
    found = report(trip, "03_primary/audit_report.json")
    assert found["without_truth"] > 0
    assert found["n"] <= 24 + UNKNOWN


def test_every_pair_that_is_trained_on_has_the_audited_error_rate_of_its_preference(trip):
    assert trip.run("audit", audit__truth="people", **trip.labels).exit_code == 0
    done = trip.run("corrections", "gold", gold__size=6, **trip.labels)
    assert done.exit_code == 0, done.error
    training = read(trip, "05_model_input/training_pairs.parquet")
    assert training.loc[training["disposition"] == "INVERT", "error_rate"].between(0.001, 0.4).all()
    assert training.loc[training["disposition"] == "PUNISH", "error_rate"].isna().all()


@pytest.mark.parametrize("audited", [True, False])
def test_a_bad_oracle_is_stopped_before_training_by_its_audit_or_by_the_labels(trip, tmp_path, audited):
    """The rules of a later policy, which regulates one topic more than the labels know of."""
    rules = {"judging__oracle": "rules", "policy": "assistant-v3", "data_root": tmp_path}
    stages = ("judging", "triage", *(["audit"] if audited else []))
    assert trip.run(*stages, **rules).exit_code == 0
    stopped = trip.run("corrections", "gold", gold__size=6, audit__max_misrouted=0.0, **rules)
    assert stopped.exit_code == 1
    source = "an audit of 24 pairs" if audited else "the labels of"
    assert f"By {source}" in stopped.error
    assert "(`audit.max_misrouted`)" in stopped.error


def test_without_a_file_the_import_says_how_to_give_one(trip):
    refused = trip.run("review_import")
    assert refused.exit_code == 1
    assert "`--params verdicts=FILE`" in refused.error


def test_verdicts_on_unknown_ids_are_refused_with_file_and_row(trip, tmp_path):
    table = pd.read_csv(trip.people / "ann.csv", keep_default_na=False)
    table.loc[1, "task_id"] = "0123456789abcdef"
    table.to_csv(tmp_path / "cy.csv", index=False)
    refused = trip.run("review_import", verdicts=tmp_path / "cy.csv")
    assert refused.exit_code == 1
    assert "cy.csv, row 3, task_id '0123456789abcdef': no pair has such a task" in " ".join(
        refused.error.split()
    )


@pytest.mark.slow
def test_training_takes_the_audited_error_rates(trip, tmp_path, tiny_model):
    params = {
        "judging__oracle": "rules", "data_root": tmp_path, "model_source": tiny_model,
        "loss__invert": "robust", "loss__error_rate": "audited",
    }  # fmt: skip
    early = trip.run("model", "judging", "triage", "corrections", "gold", "impact", **params)
    assert early.exit_code == 1
    assert "`loss.error_rate: audited` needs an audit of these very splits" in early.error
    assert trip.run("audit", **params).exit_code == 0
    done = trip.run("gold", "impact", "training", **params)
    assert done.exit_code == 0, done.error
    assert list((tmp_path / "06_models/realigned_model").iterdir())
