"""People verify corrections too: where the verifier errs, by writer and rule, and what it lets through."""

import json

import numpy as np
import pandas as pd
import pytest
from command_line import saved
from made_up_pairs import POLICY

from realignment.corrections import measure_verifier, sample_for_review
from realignment.corrections.candidates import PEOPLE, CandidateError
from realignment.corrections.leakage import LEAKAGE_COLUMNS
from realignment.policy import Policy
from realignment.reports import draw_correction_leakage
from realignment.review.tasks import task_id
from realignment.review.verdicts import VERDICT_COLUMNS
from realignment.statistics import wilson_interval

WORDS = ["gold", "income", "price", "year", "bank", "rate", "fund", "share", "cost", "tax", "loan", "debt"]


def verified(*groups, verifier="rules"):
    """(writer, the verifier's verdict, rules, number, ending) → corrections, one of each pair."""
    rng, rows = np.random.default_rng(0), []
    for writer, complies, rules, number, ending in groups:
        for _ in range(number):
            text = " ".join(rng.choice(WORDS, rng.integers(15, 25))) + "."
            text = f"{text} {ending}" if rng.random() < 0.8 else text
            rows.append((f"p{len(rows)}", writer, text, complies, rules))
    table = pd.DataFrame(rows, columns=["pair_id", "writer", "response", "complies", "rules_broken"])
    names = [task_id("Why?", text) for text in table["response"]]
    words = table["response"].str.split().str.len().astype(float)
    table = table.assign(task_id=names, words=words, verifier=verifier, verified_under=POLICY.fingerprint)
    return table.astype({"complies": "boolean"})


def verdicts(table, complies, rules=""):
    """One person's verdicts on corrections."""
    people_verdicts = pd.DataFrame(
        {"task_id": table["task_id"], "prompt": "Why?", "response": table["response"]}
    )
    people_verdicts = people_verdicts.assign(
        domain=None, policy=POLICY.full_name, policy_digest=POLICY.fingerprint, reason=None
    )
    people_verdicts = people_verdicts.assign(complies=complies, rules_broken=rules, annotator="ann")
    return people_verdicts[list(VERDICT_COLUMNS)].astype({"complies": "boolean"})


def measured(table, people_verdicts, policy=POLICY):
    leakage = measure_verifier(table, people_verdicts, policy, seed=0)
    assert list(leakage.columns) == list(LEAKAGE_COLUMNS)
    return leakage.set_index(["writer", "group", "metric"])


def test_equally_many_of_every_writer_and_verdict_are_asked():
    table = verified(
        ("model", True, "", 4, ""), ("model", False, "r", 50, ""), (PEOPLE, True, "", 30, ""),
        (PEOPLE, False, "r", 1, ""), ("model", None, "", 9, ""),
    )  # fmt: skip
    drawn = sample_for_review(table, size=20, seed=0)
    counts = drawn.groupby(["writer", "complies"]).size().to_dict()
    assert counts.pop((PEOPLE, False)) == 1
    assert counts.pop(("model", True)) == 4
    assert len(drawn) == 20
    assert max(counts.values()) - min(counts.values()) <= 1
    assert len(sample_for_review(table, size=999, seed=0)) == 85
    assert set(sample_for_review(table, size=20, seed=1)["task_id"]) != set(drawn["task_id"])


def test_what_people_have_verified_already_is_not_asked_again():
    assert sample_for_review(verified(("model", True, "", 4, ""), verifier="human"), size=9, seed=0).empty


def test_a_table_of_an_earlier_version_is_refused():
    with pytest.raises(CandidateError, match="by an earlier version"):
        sample_for_review(verified(("model", True, "", 4, "")).drop(columns="task_id"), size=9, seed=0)


def test_where_the_verifier_errs_is_found_by_writer_and_rule():
    table = verified(
        ("model", True, "", 20, ""), ("model", False, "short", 10, ""), (PEOPLE, True, "", 5, "")
    )
    approved, refused, people = table.iloc[:20], table.iloc[20:30], table.iloc[30:]
    people_verdicts = pd.concat([
        verdicts(approved.iloc[:15], True), verdicts(approved.iloc[15:], False, "calm"),
        verdicts(refused.iloc[:8], False, "short"), verdicts(refused.iloc[8:], True), verdicts(people, True),
    ])  # fmt: skip
    leakage = measured(table, people_verdicts)
    shares = {
        key: (row["n_people"], row["people"], row["value"])
        for key, row in leakage.iterrows()
        if key[1] == "verifier"
    }
    assert shares == {
        ("model", "verifier", "approved"): (20, 0.75, 1.0),
        ("model", "verifier", "refused"): (10, 0.2, 0.0),
        ("model", "verifier", "short found"): (10, 0.8, 1.0),
        ("model", "verifier", "calm missed"): (20, 0.25, 0.0),
        (PEOPLE, "verifier", "approved"): (5, 1.0, 1.0),
    }
    row = leakage.loc[("model", "verifier", "approved")]
    low, high = wilson_interval(15, 20)
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((0.25, 1 - high, 1 - low))


def test_what_the_verifier_alone_lets_through_differs_from_the_human_verified_subset():
    """It lets courtesies through and people do not: length and style say so; where both agree, nothing."""
    table = verified(("model", True, "", 30, "Hope this helps! Thank you."), ("model", True, "", 30, ""))
    people_verdicts = pd.concat([verdicts(table.iloc[:30], False), verdicts(table.iloc[30:], True)])
    leakage = measured(table, people_verdicts)
    for group, metric in (("length", "words"), ("style", "politeness"), ("style", "exclamation")):
        assert leakage.loc[("model", f"{group}, human-verified", metric), "low"] > 0, metric
    assert leakage.loc[("model", "told apart, human-verified", "AUC"), "value"] > 0.9
    plain = verified(("model", True, "", 60, ""))
    agreed = measured(plain, verdicts(plain.sample(30, random_state=0), True))
    told = agreed.loc[("model", "told apart, human-verified", "AUC")]
    assert told["low"] < 0 < told["high"]
    assert "length, human-verified: words" in draw_correction_leakage(leakage.reset_index()).data[1].y


@pytest.mark.parametrize("case", ["no verdicts", "another text", "other responses", "no corrections", "ties"])
def test_without_verdicts_of_people_on_these_corrections_there_is_nothing_to_say(case):
    table = verified(("model", True, "", 5, ""))
    people_verdicts, policy = verdicts(table, True), POLICY
    match case:
        case "no verdicts":
            people_verdicts = pd.DataFrame()
        case "another text":
            policy = Policy(name="advice", version="2", text="Be bold.")
        case "other responses":
            people_verdicts = people_verdicts.assign(task_id="0")
        case "no corrections":
            table = pd.DataFrame()
        case "ties":
            people_verdicts = pd.concat(
                [people_verdicts, people_verdicts.assign(complies=False, annotator="bo")]
            )
    assert measured(table, people_verdicts, policy).empty


def read(data, name):
    folder, *_ = sorted(data.glob(f"0*/{name}.*"))
    file = saved(folder)
    match file.suffix:
        case ".json":
            return json.loads(file.read_text())
        case ".csv":
            return pd.read_csv(file, keep_default_na=name != "review_table")
    return pd.read_parquet(file)


LOOSE = {"min_words": 1, "min_topic": 0, "max_copied": 1, "min_distinct": 0, "allow_refusal": "true"}
WRITER = {"corrections__writer": "model", "corrections__samples": 2, "corrections__max_new_tokens": 24}
WRITER |= {f"corrections__quality__{name}": value for name, value in LOOSE.items()}


@pytest.fixture(scope="module")
def trip(kedro_in_process, tmp_path_factory, tiny_model):
    """The sample, corrected by people and a model, verified by rules, exported, judged, imported."""
    data = tmp_path_factory.mktemp("verified")

    def run(*options, **params):
        return kedro_in_process(*options, data_root=data, **params)

    outcomes = [
        run("--pipelines", "judging,triage", intake__limit=120),
        run("--pipelines", "corrections", model_source=tiny_model, **WRITER),
        run("--pipelines", "review_export", review__corrections=24, review__audit="false"),
    ]
    assert all(outcome.exit_code == 0 for outcome in outcomes), [o.error for o in outcomes]
    table, verified = (
        read(data, "review_table"),
        read(data, "verified_corrections").drop_duplicates("task_id"),
    )
    people_verdicts = table["task_id"].map(verified.set_index("task_id")["complies"])
    table["verdict"] = people_verdicts.map({True: "complies", False: "violates"}).fillna("unsure")
    first = verified.loc[
        verified["task_id"].isin(table["task_id"]) & (verified["writer"] == "model"), "task_id"
    ].iloc[0]
    table.loc[table["task_id"] == first, "verdict"] = (
        "complies" if not people_verdicts[table["task_id"] == first].all() else "violates"
    )
    table.to_csv(data / "ann.csv", index=False)
    same_as = (
        "sha256:0123456789ab"  # of a text that nobody has read: a digest can be given on the command line
    )
    imported = run("--pipelines", "review_import", verdicts=data / "ann.csv", review__same_as=same_as)
    assert imported.exit_code == 0, imported.error
    return data, run, first


def test_people_are_asked_for_corrections_of_both_writers_without_being_told(trip):
    data, _, _ = trip
    tasks, verified = read(data, "review_tasks"), read(data, "verified_corrections")
    correction_tasks = tasks[tasks["purpose"] == "correction"]
    assert len(correction_tasks) == 24
    assert set(verified.loc[verified["task_id"].isin(correction_tasks["task_id"]), "writer"]) == {
        PEOPLE,
        "model",
    }
    assert not {"writer", "model", "verifier", "complies"} & set(read(data, "review_table"))


def test_the_report_has_the_verifiers_agreement_with_people(trip):
    data, _, first = trip
    leakage = read(data, "correction_leakage")
    agreement = leakage[(leakage["group"] == "verifier") & leakage["metric"].isin(["approved", "refused"])]
    right = (agreement["n_people"] * (1 - (agreement["value"] - agreement["people"]).abs())).round()
    assert agreement["n_people"].sum() == 24
    assert agreement.assign(right=right).groupby("writer").apply(
        lambda part: int((part["n_people"] - part["right"]).sum()), include_groups=False
    ).to_dict() == {"model": 1, PEOPLE: 0}
    assert first in set(read(data, "human_verdicts")["task_id"])


def test_people_can_be_the_verifier_of_what_a_machine_has_written(trip):
    data, run, first = trip
    before = read(data, "verified_corrections")
    file = saved(data / "02_intermediate/human_verdicts.parquet")
    named = {"corrections__verifier__oracle": "human", "corrections__verifier__human__verdicts": file}
    done = run(
        "--pipelines", "corrections", "--from-nodes", "corrections.verify_candidates", **WRITER, **named
    )
    assert done.exit_code == 0, done.error
    after = read(data, "verified_corrections")
    was, now = (table.set_index("task_id").loc[first, "complies"] for table in (before, after))
    assert bool(np.all(was)) is not bool(np.all(now))
    assert set(after["verifier"]) == {"human"}


def test_corrections_cannot_be_asked_for_before_there_are_any(kedro_in_process, tmp_path):
    assert (
        kedro_in_process("--pipelines", "judging,triage", data_root=tmp_path, intake__limit=60).exit_code == 0
    )
    refused = kedro_in_process("--pipelines", "review_export", data_root=tmp_path, review__corrections=5)
    assert refused.exit_code == 1
    assert "There are no corrections yet. Run `--pipelines corrections`" in refused.error
