"""People's verdicts come back in every format, and what cannot be used is named by file and row."""

import json

import pandas as pd
import pytest
import yaml
from command_line import ROOT
from made_up_pairs import make_pairs

from realignment.oracles.human import HumanOracle
from realignment.parameters import ReviewParameters
from realignment.policy import parse_policy
from realignment.records import Exchange
from realignment.review import forms
from realignment.review.spreadsheets import escape_formula, unescape_formula
from realignment.review.tasks import combine_tasks, list_tasks, task_id
from realignment.review.verdicts import VERDICT_COLUMNS, VerdictError, check_verdicts, read_verdicts

RULES = [{"id": "calm", "description": 'Is calm & "kind".', "check": {"kind": "length", "max_words": 9}}]
POLICY = parse_policy({"name": "a", "version": "1", "text": "Be kind.", "rules": RULES}, source="test")
PAIRS = make_pairs({"domain": "law"}, {"chosen": 'Line one,\nline "two"'}, {})
TASKS = list_tasks(PAIRS, POLICY, "audit")


def filled(tasks=TASKS, **changes):
    """Our own form, filled in: complies, violates `calm`, unsure."""
    table = forms.as_table(tasks.head(3))
    table["verdict"] = ["complies", " Violates", "unsure"]
    table["rules_broken"] = ["", "calm", ""]
    table["reason"] = ["", "shouts", ""]
    return table.assign(**({"annotator": "ann"} | changes))


def check(raw, **settings):
    return check_verdicts(raw, TASKS, POLICY, **settings)


def read_back(table, folder, name="ann.csv"):
    table.to_csv(folder / name, index=False)
    return read_verdicts(str(folder / name))


def test_a_task_is_named_by_its_texts_and_shared_texts_are_one_task():
    assert task_id("ab", "c") != task_id("a", "bc")
    shared = make_pairs({"prompt": "P?"}, {"prompt": "P?", "chosen": "chosen 0"})
    assert len(list_tasks(shared, POLICY, "review")) == 3


def test_a_task_of_both_purposes_is_asked_once_and_the_order_tells_nothing():
    tasks = combine_tasks(list_tasks(PAIRS.head(2), POLICY, "review"), TASKS)
    assert len(tasks) == len(TASKS)
    assert tasks["purpose"].value_counts().to_dict() == {"audit and review": 4, "audit": 2}
    assert tasks["task_id"].is_monotonic_increasing


def test_no_form_shows_what_the_oracle_said():
    shown = set(forms.as_table(TASKS))
    assert shown == {
        "task_id", "policy", "policy_digest", "domain", "prompt", "response", "verdict", "rules_broken",
        "reason", "annotator",
    }  # fmt: skip


def test_a_filled_in_table_comes_back_as_verdicts(tmp_path):
    verdicts = check(read_back(filled(), tmp_path))
    assert list(verdicts) == list(VERDICT_COLUMNS)
    assert verdicts["complies"].tolist() == [True, False, pd.NA]
    assert verdicts["rules_broken"].tolist() == ["", "calm", ""]
    assert verdicts["response"].tolist() == TASKS["response"].head(3).tolist()
    assert set(verdicts["annotator"]) == {"ann"}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_every_format_of_our_own_form_gives_the_same_verdicts(tmp_path, suffix):
    expected, file = check(read_back(filled(), tmp_path)), tmp_path / f"x.{suffix}"
    match suffix:
        case "csv":
            filled().to_csv(file, index=False)
        case "jsonl":
            filled().to_json(file, orient="records", lines=True)
        case "parquet":
            filled().to_parquet(file)
    pd.testing.assert_frame_equal(check(read_verdicts(str(file))), expected)


def test_the_json_lines_form_is_read_back_as_nothing_filled_in(tmp_path):
    (tmp_path / "a.jsonl").write_text(forms.as_json_lines(TASKS))
    raw = read_verdicts(str(tmp_path / "a.jsonl"))
    assert len(raw) == len(TASKS)
    assert raw["verdict"].isna().all()


def test_label_studios_export_is_read_annotation_by_annotation(tmp_path):
    def choice(name, *values):
        return {"from_name": name, "to_name": "response", "type": "choices", "value": {"choices": [*values]}}

    exported = [{"id": i, **task} for i, task in enumerate(forms.as_label_studio(TASKS))]
    exported[0]["annotations"] = [
        {"completed_by": 7, "result": [choice("verdict", "violates"), choice("rules_broken", "calm")]},
        {"completed_by": {"id": 8, "email": "bo@x.org"}, "result": [choice("verdict", "complies")]},
        {"completed_by": 9, "was_cancelled": True, "result": [choice("verdict", "complies")]},
    ]
    reason = {"from_name": "reason", "type": "textarea", "value": {"text": ["shouts"]}}
    exported[1]["annotations"] = [{"completed_by": 7, "result": [choice("verdict", "unsure"), reason]}]
    exported[2]["annotations"] = []
    (tmp_path / "project.json").write_text(json.dumps(exported[:3]))
    verdicts = check(read_verdicts(str(tmp_path / "project.json")))
    assert verdicts["annotator"].tolist() == ["7", "bo@x.org", "7"]
    assert verdicts["complies"].tolist() == [False, True, pd.NA]
    assert verdicts["rules_broken"].tolist() == ["calm", "", ""]
    assert verdicts["reason"].tolist()[2] == "shouts"


def test_label_studios_short_export_is_read_like_our_own_form(tmp_path):
    rows = [
        {
            "id": 1,
            **task["data"],
            "verdict": "violates",
            "rules_broken": {"choices": ["calm"]},
            "annotator": 3,
        }
        for task in forms.as_label_studio(TASKS.head(1))
    ]
    (tmp_path / "min.json").write_text(json.dumps(rows))
    (verdict,) = check(read_verdicts(str(tmp_path / "min.json"))).to_dict("records")
    assert (verdict["complies"], verdict["rules_broken"], verdict["annotator"]) == (False, "calm", "3")


def test_argillas_export_is_read_user_by_user(tmp_path):
    records = forms.as_argilla(TASKS)
    records[0]["responses"] = {
        "verdict": [{"value": "complies", "user_id": "u1"}, {"value": "violates", "user_id": "u2"}],
        "rules_broken": [{"value": ["calm"], "user_id": "u2"}],
    }
    (tmp_path / "argilla.json").write_text(json.dumps(records))
    verdicts = check(read_verdicts(str(tmp_path / "argilla.json")))
    assert verdicts[["annotator", "complies", "rules_broken"]].to_numpy().tolist() == [
        ["u1", True, ""], ["u2", False, "calm"]
    ]  # fmt: skip


def test_the_labelling_interface_is_well_formed_and_has_every_verdict_and_rule():
    from xml.etree import ElementTree

    view = ElementTree.fromstring(forms.label_studio_config(POLICY))
    values = [choice.get("value") for choice in view.iter("Choice")]
    assert values == ["complies", "violates", "unsure", "calm"]
    assert [text.get("value") for text in view.iter("Text")] == ["$prompt", "$response"]
    assert {"prompt", "response"} <= set(forms.as_label_studio(TASKS)[0]["data"])


def test_a_folder_has_one_file_per_annotator_named_by_it(tmp_path):
    for name in ("ann", "bo"):
        filled(annotator="").to_csv(tmp_path / f"{name}.csv", index=False)
    assert check(read_verdicts(str(tmp_path)))["annotator"].tolist() == ["ann"] * 3 + ["bo"] * 3


BAD = {
    "an unknown id": (
        {"task_id": ["x", *TASKS["task_id"][1:3]]},
        "row 2, task_id 'x': no pair has such a task",
    ),
    "a word that is no verdict": (
        {"verdict": ["yes", "violates", "unsure"]},
        "row 2, verdict 'yes': expected complies",
    ),
    "a rule that is not there": (
        {"rules_broken": ["", "clam", ""]},
        "rules_broken 'clam': expected ids of the policy's rules",
    ),
    "a changed text": (
        {"response": ["Better so.", *TASKS["response"][1:3]]},
        "row 2, response: the text was changed",
    ),
    "broken rules of a complying response": (
        {"rules_broken": ["calm", "calm", ""]},
        "row 2, rules_broken 'calm': broken rules and the verdict complies contradict each other",
    ),
    "another policy": ({"policy": "a-2"}, "policy 'a-2': expected a-1"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_verdict_that_cannot_be_used_is_named_by_file_and_row(tmp_path, name):
    changes, message = BAD[name]
    with pytest.raises(VerdictError) as error:
        check(read_back(filled(**changes), tmp_path))
    assert "ann.csv" in str(error.value)
    assert message in str(error.value)


def test_two_verdicts_of_one_annotator_on_one_task_are_both_named(tmp_path):
    twice = pd.concat([filled(), filled().head(1)])
    with pytest.raises(VerdictError, match=r"(?s)2 verdicts cannot be used.*row 2, annotator 'ann'.*row 6"):
        check(read_back(twice, tmp_path))


@pytest.mark.parametrize("other", ["Ann ", "ANN", " ann"])
def test_another_spelling_of_a_name_is_the_same_person(tmp_path, other):
    """Else one person's second verdict would count as agreement between two."""
    twice = pd.concat([filled(), filled(annotator=other).head(1)])
    with pytest.raises(VerdictError, match=r"(?s)2 verdicts cannot be used.*row 2.*row 6"):
        check(read_back(twice, tmp_path))
    apart = pd.concat([filled().head(2), filled(annotator=other).tail(1)])
    assert check(read_back(apart, tmp_path))["annotator"].nunique() == 1


EDITED = parse_policy({"name": "a", "version": "1", "text": "Be short.", "rules": RULES}, source="test")


def test_verdicts_by_what_the_policy_said_before_an_edit_are_refused(tmp_path):
    forms_before = read_back(filled(), tmp_path)
    with pytest.raises(VerdictError) as error:
        check_verdicts(forms_before, TASKS, EDITED)
    assert f"row 2, policy_digest '{POLICY.fingerprint}': the policy was edited since" in str(error.value)
    assert "`review.same_as`" in str(error.value)


def test_who_says_that_the_edit_does_not_matter_has_the_verdicts_for_what_it_says_now(tmp_path):
    same_as = ReviewParameters(same_as=POLICY.fingerprint).same_as
    verdicts = check_verdicts(read_back(filled(), tmp_path), TASKS, EDITED, same_as=same_as)
    assert set(verdicts["policy_digest"]) == {EDITED.fingerprint}
    asked = [Exchange(verdicts["prompt"][0], verdicts["response"][0])]
    assert HumanOracle.from_table(verdicts)(asked, EDITED)[0].complies is True


FORMULAS = [
    "=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''=1", "'tis", "plain", "'", "", "\n=1", " =1"
]  # fmt: skip


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_of_a_spreadsheet_is_a_formula_and_the_guard_comes_off_exactly(text):
    assert escape_formula(text)[:1] not in tuple("=+-@\t\r")
    assert unescape_formula(escape_formula(text)) == text


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_texts_like_formulas_come_back_as_they_were_asked(tmp_path, suffix):
    texts = [text for text in FORMULAS if text.strip()]
    pairs = make_pairs(*({"prompt": f"{text}?", "chosen": text} for text in texts))
    tasks = list_tasks(pairs, POLICY, "audit")
    table = forms.as_spreadsheet(tasks).assign(verdict="complies", annotator="ann")
    file = tmp_path / f"ann.{suffix}"
    match suffix:  # a person may save the table of the spreadsheet in any format, guards and all
        case "csv":
            catalog = yaml.safe_load((ROOT / "conf/base/catalog_review.yml").read_text())
            table.to_csv(file, **catalog["review_table"]["save_args"])
            assert read_verdicts(str(file))["response"].tolist() == tasks["response"].tolist()
        case "jsonl":
            table.to_json(file, orient="records", lines=True)
        case "parquet":
            table.to_parquet(file)
    verdicts = check_verdicts(read_verdicts(str(file)), tasks, POLICY)
    assert verdicts["response"].tolist() == tasks["response"].tolist()


def test_line_ends_that_a_spreadsheet_changed_are_no_change(tmp_path):
    tasks = TASKS[TASKS["response"].str.contains("\n")]
    table = forms.as_table(tasks).assign(verdict="complies", annotator="ann")
    table["response"] = table["response"].str.replace("\n", "\r\n")
    assert len(check(read_back(table, tmp_path))) == 1


def test_a_file_of_another_kind_is_refused_with_what_was_found(tmp_path):
    with pytest.raises(VerdictError, match=r"has columns answer, id; expected task_id and verdict"):
        read_back(pd.DataFrame({"id": [1], "answer": ["yes"]}), tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(VerdictError, match="holds no file"):
        read_verdicts(str(tmp_path))


EXPORTS = {
    "data is a text": {"data": "text", "annotations": [{"result": []}]},
    "no result": {"data": {}, "annotations": [{"completed_by": 1}]},
    "a result of nothing": {"data": {}, "annotations": [{"result": [{"type": "choices"}]}]},
    "annotations is a number": {"data": {}, "annotations": 5},
    "no fields": {"fields": None, "responses": {"verdict": [{"value": "complies", "user_id": "u"}]}},
    "responses by user": {"fields": {}, "responses": [{"values": {}, "user_id": "u"}]},
}


@pytest.mark.parametrize("row", EXPORTS.values(), ids=EXPORTS)
def test_an_export_of_another_shape_is_named_by_file_and_row(tmp_path, row):
    (tmp_path / "export.json").write_text(json.dumps([row]))
    with pytest.raises(VerdictError, match=r"export.json, row 1: its columns are those of an export"):
        read_verdicts(str(tmp_path / "export.json"))


def test_forms_that_nobody_has_filled_in_do_not_replace_an_earlier_import(tmp_path):
    with pytest.raises(VerdictError, match="None of the 3 rows has a verdict"):
        check(read_back(filled(verdict=""), tmp_path))
