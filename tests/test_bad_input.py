"""What a person is told who brings something that cannot be used. Nothing is trained in any of these runs."""

import json
import os

import pandas as pd
import pytest
from command_line import ROOT, kedro, latest_run, saved

STAGES = "judging,triage,corrections,gold"
MONEY = "How should I invest my savings?"
GOOD = {
    "pair_id": "good", "prompt": MONEY, "domain": "money", "chosen": "Buy shares today.",
    "rejected": "Speaking generally, an independent financial adviser can help.",
    "chosen_complies": False, "rejected_complies": True,
}  # fmt: skip


def pair(number, **changes):
    return GOOD | {"pair_id": f"pair-{number}", "prompt": f"{MONEY} ({number})"} | changes


def retained(number):
    return pair(number, chosen_complies=True, rejected_complies=False)


@pytest.fixture
def folder(tmp_path):
    return tmp_path


@pytest.fixture
def run(kedro_in_process, folder):
    """Runs the stages before the first model on rows, with the labels of the rows for an oracle."""

    def run(rows=None, stages=STAGES, **params):
        if rows is not None:
            file = folder / "pairs.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            params["pairs"] = file
        labels = {"judging__oracle": "labels", "gold__size": 3} if rows is not None else {}
        return kedro_in_process("--pipelines", stages, data_root=folder / "data", **(labels | params))

    return run


def refused(outcome, *parts):
    assert outcome.exit_code != 0
    missing = [part for part in parts if part not in outcome.error]
    assert not missing, f"{missing} not in {outcome.error!r}"


CONVERSATION = [{"role": "user", "content": MONEY}, {"role": "assistant", "content": "Buy shares today."}]
BAD_ROWS = {
    "a text that is null": ({"chosen": None}, "chosen"),
    "an empty text": ({"prompt": "  "}, "prompt"),
    "two equal responses": ({"rejected": GOOD["chosen"]}, "rejected"),
    "a repeated pair_id": ({"pair_id": "pair-1"}, "pair_id"),
    "a row of another format": ({"chosen": CONVERSATION}, "chosen"),
    "a label that is no truth value": ({"chosen_complies": "maybe"}, "chosen_complies"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_stops_a_strict_run_with_its_row_and_field(run, folder, name):
    changes, field = BAD_ROWS[name]
    refused(
        run([pair(1), pair(2, **changes)], intake__invalid="fail"),
        f"row 2, field {field}: ",
        "`invalid: skip`",
    )
    assert not (folder / "data/06_models").exists()


def test_bad_rows_that_are_skipped_are_listed_with_their_reasons_and_counted(run, folder):
    bad = [pair(number, **changes) for number, (changes, _) in enumerate(BAD_ROWS.values(), start=50)]
    outcome = run([*(pair(n) for n in range(12)), *(retained(n) for n in range(20, 30)), *bad])
    assert outcome.exit_code == 0
    rejected = pd.read_csv(saved(folder / "data/02_intermediate/rejected_rows.csv"))
    assert list(rejected["row"]) == [23, 24, 25, 26, 27, 28]
    assert list(rejected["field"]) == [field for _, field in BAD_ROWS.values()]
    assert rejected["reason"].notna().all()
    report = json.loads(saved(folder / "data/08_reporting/intake_report.json").read_text())
    assert (report["rows"], report["pairs"], report["rejected"]) == (28, 22, 6)
    assert len(pd.read_parquet(saved(folder / "data/02_intermediate/pairs.parquet"))) == 22


@pytest.mark.parametrize(
    ("long_prompts", "pairs", "rejected", "cut"), [("drop", 21, 1, 0), ("truncate", 22, 0, 1)]
)
def test_a_long_prompt_is_dropped_with_count_or_truncated(run, folder, long_prompts, pairs, rejected, cut):
    rows = [
        *(pair(n) for n in range(11)),
        *(retained(n) for n in range(20, 30)),
        pair(40, prompt="Why? " * 99),
    ]
    assert run(rows, intake__long_prompts=long_prompts, intake__max_prompt_chars=100).exit_code == 0
    report = json.loads(saved(folder / "data/08_reporting/intake_report.json").read_text())
    assert (report["pairs"], report["rejected"], report["truncated"]) == (pairs, rejected, cut)


def test_a_long_prompt_stops_the_run_where_it_must_not_occur(run):
    rows = [pair(1), pair(2, prompt="Why? " * 99)]
    refused(
        run(rows, intake__long_prompts="fail", intake__max_prompt_chars=100),
        "row 2, field prompt: ", "more than 100 characters", "`long_prompts`",
    )  # fmt: skip


def test_missing_columns_are_named_with_those_that_are_there(run):
    refused(
        run([{"prompt": MONEY, "answer": "Buy."}]), "no column `chosen`, `rejected`", "Found: prompt, answer"
    )


def test_an_empty_file_is_refused(run, folder):
    (folder / "empty.jsonl").touch()
    refused(run(pairs=folder / "empty.jsonl"), "empty.jsonl is empty (0 bytes)")


def test_a_file_that_is_not_utf8_is_refused_with_line_and_byte(run, folder):
    (folder / "latin.jsonl").write_bytes(json.dumps(GOOD).encode() + b'\n{"prompt": "caf\xe9"}\n')
    refused(run(pairs=folder / "latin.jsonl"), "is not UTF-8: line 2", "0xe9", "iconv")


def test_a_file_that_is_not_there_is_refused(run, folder):
    refused(run(pairs=folder / "pears.jsonl"), "No file", "pears.jsonl")


def test_labels_that_are_asked_for_must_be_there(run):
    unlabelled = {key: value for key, value in GOOD.items() if not key.endswith("_complies")}
    refused(
        run([unlabelled]), "`judging.oracle: labels` needs the columns chosen_complies and rejected_complies"
    )


def test_without_retain_pairs_the_run_stops(run):
    refused(run([pair(n) for n in range(12)]), "No pair is RETAIN (12 conflicts)", "Add pairs")


def test_a_gold_batch_larger_than_the_data_is_refused(run):
    rows = [*(pair(n) for n in range(12)), *(retained(n) for n in range(20, 30))]
    refused(run(rows, gold__size=500), "A gold batch of 500 pairs is too large", "Lower `gold.size`")


def test_without_a_confident_verdict_the_run_stops(run):
    rows = [pair(n, chosen_complies=None, rejected_complies=None) for n in range(9)]
    refused(run([*rows, pair(10)]), "18 of 20", "judging.max_unscored")


@pytest.mark.parametrize(
    ("params", "parts"),
    [
        (
            {"traning__epochs": 2},
            ["Unknown parameter 'traning'. Did you mean training or streaming or triage?"],
        ),
        ({"intake__limits": 2}, ["Parameter 'intake'", "no parameter `limits`; did you mean `limit`?"]),
        ({"gold__size": "many"}, ["Parameter 'gold'", "size", "valid integer"]),
        ({"judging__oracle": "oracle-of-delphi"}, ["Parameter 'judging'", "'rules', 'labels', 'human'"]),
    ],
)
def test_a_wrong_parameter_is_refused_before_anything_runs(run, folder, params, parts):
    refused(run(**params), *parts)
    assert not (folder / "data").exists()


@pytest.fixture
def policy(folder):
    """Writes a policy and gives the name under which the catalog finds it."""

    def write(check):
        file = folder / "mine.yml"
        file.write_text(
            "{name: mine, version: '1', text: Be kind., "
            f"rules: [{{id: kind, description: Is kind., check: {check}}}]}}"
        )
        return os.path.relpath(file.with_suffix(""), ROOT / "conf/base/policies")

    return write


@pytest.mark.parametrize(
    ("check", "parts"),
    [
        (
            "{kind: forbidden, patterns: ['(unclosed']}",
            ["rule kind", "broken regular expression '(unclosed'"],
        ),
        ("{kind: telepathy}", ["rule kind", "telepathy", "'forbidden'"]),
        ("{kind: callable, path: 'no.such:check'}", ["rule kind", "cannot import 'no.such:check'"]),
    ],
)
def test_a_policy_that_cannot_be_checked_names_its_rule(run, folder, policy, check, parts):
    refused(run(policy=policy(check)), "mine.yml is not a valid policy", *parts)
    assert not (folder / "data/02_intermediate/judgments.parquet").exists()


def test_an_unknown_policy_is_refused_with_those_that_are_there(run):
    refused(run(policy="assistant-v9"), "No policy file", "assistant-v9.yml", "assistant-v1, assistant-v2")


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("nobody/no-such-model", ["The Hub model nobody/no-such-model", "Go online once"]),
        ("pypi://no-such-distribution-of-a-model==1/a.gguf", ["no-such-distribution-of-a-model"]),
        ("models:/nobody@champion", ["No model models:/nobody@champion", "MLFLOW_TRACKING_URI"]),
        ("just-a-word", ["'just-a-word' is no folder", "hub://ORG/NAME"]),
    ],
)
def test_a_model_that_cannot_be_had_says_what_to_do(run, folder, source, parts):
    refused(run(stages="model", model_source=source, model__folder=folder / "models"), *parts)
    assert not list((folder / "data").rglob("*.json"))


@pytest.mark.slow
def test_where_all_pairs_are_retained_there_is_nothing_to_do_and_the_run_ends_well(folder):
    rows = [retained(number) for number in range(12)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcome = kedro(
        "--pipelines",
        STAGES,
        pairs=folder / "pairs.jsonl",
        data_root=folder / "data",
        judging__oracle="labels",
    )
    assert outcome.exit_code == 0
    assert "there is nothing to re-align" in " ".join(outcome.output.split())
    assert "Traceback" not in outcome.output
    assert not (folder / "data/05_model_input").exists()
    run = latest_run("corrections+gold+judging+triage")
    assert run.info.status == "FINISHED"
    assert run.data.tags["nothing_to_do"].startswith("All 12 judged pairs already comply")


@pytest.mark.slow
def test_in_a_terminal_an_error_is_its_message_alone(folder):
    outcome = kedro("--pipelines", STAGES, pairs=folder / "pears.jsonl", data_root=folder / "data")
    assert outcome.exit_code == 1
    assert outcome.error.startswith(f"No file {folder}/pears.jsonl.")
    assert "Traceback" not in outcome.output
    assert latest_run("corrections+gold+judging+triage").info.status == "FAILED"
