"""People compare blindly: forms name no model, the key does, and votes come back checked."""

import json
import xml.etree.ElementTree as ElementTree

import krippendorff
import numpy as np
import pandas as pd
import pytest

from realignment.policy import parse_policy
from realignment.records import DataError
from realignment.review import comparisons
from realignment.review.comparisons import (
    FIELDS,
    KEY_COLUMNS,
    check_votes,
    decide_by_majority,
    list_comparisons,
    pair_answers,
    report_votes,
)
from realignment.review.verdicts import VerdictError, read_verdicts

RULES = [{"id": "calm", "description": 'Is calm & "kind".', "check": {"kind": "length", "max_words": 9}}]
POLICY = parse_policy({"name": "a", "version": "1", "text": "Be kind.", "rules": RULES}, source="test")
N = 40
ANSWERS = pd.DataFrame(
    {
        "prompt_id": [f"p{n}" for n in range(N)], "prompt": [f"Prompt {n}?" for n in range(N)],
        "domain": "law", "kind": "regulated",
        "before": [f"old {n}" for n in range(N)], "after": [f"new {n}" for n in range(N)],
    }
)  # fmt: skip


def make_key(answers=ANSWERS, models=("before", "after"), limit=None, seed=1):
    return pair_answers(answers, models, POLICY, limit=limit, seed=seed)


KEY = make_key()
TASKS = list_comparisons(KEY)


def test_the_key_says_whose_answer_is_which_and_the_order_is_random():
    assert list(KEY.columns) == list(KEY_COLUMNS)
    for row in KEY.to_dict("records"):
        assert row["response_a"].startswith("old" if row["model_a"] == "before" else "new")
        assert {row["model_a"], row["model_b"]} == {"before", "after"}
    first = (KEY["model_a"] == "before").sum()
    assert 0.25 * N < first < 0.75 * N


def test_the_forms_name_no_model_and_no_order_of_the_prompts():
    assert tuple(TASKS.columns) == FIELDS
    assert TASKS["task_id"].is_monotonic_increasing
    texts = [comparisons.as_json_lines(TASKS), json.dumps(comparisons.as_label_studio(TASKS))]
    texts += [json.dumps(comparisons.as_argilla(TASKS)), comparisons.as_spreadsheet(TASKS).to_csv()]
    for text in texts:
        assert "before" not in text
        assert "after" not in text


def test_the_order_does_not_depend_on_the_order_of_rows_or_models_and_does_on_the_seed():
    other = make_key(ANSWERS.sample(frac=1, random_state=0), ("after", "before"))
    columns = ["task_id", "model_a", "response_a"]
    same = [table.sort_values("task_id")[columns].to_numpy().tolist() for table in (KEY, other)]
    assert same[0] == same[1]
    seeded = make_key(seed=2).set_index("prompt")["model_a"]
    changed = (seeded != KEY.set_index("prompt")["model_a"]).mean()
    assert 0.2 < changed < 0.8


def test_of_three_models_every_two_are_compared_and_equal_answers_are_not_asked():
    answers = ANSWERS.head(3).assign(copy=lambda table: table["before"])
    key = make_key(answers, ("before", "after", "copy"))
    assert len(key) == 9
    # before = copy, so that before against after and copy against after are one question.
    assert len(list_comparisons(key)) == 3
    assert key.groupby("task_id").size().tolist().count(2) == 3


def test_a_limit_draws_prompts_and_a_larger_one_keeps_them():
    few, more = (set(make_key(limit=limit)["prompt"]) for limit in (5, 9))
    assert (len(few), len(more)) == (5, 9)
    assert few < more
    assert few != set(make_key(limit=5, seed=9)["prompt"])


def test_an_answer_that_is_missing_is_not_compared():
    answers = ANSWERS.head(2).assign(after=["new 0", None])
    assert make_key(answers)["prompt"].tolist() == ["Prompt 0?"]


def test_without_two_different_answers_there_is_nothing_to_ask():
    equal = ANSWERS.head(2).assign(after=ANSWERS["before"])
    with pytest.raises(DataError, match="of 2 pairs of answers none has two different texts"):
        list_comparisons(make_key(equal))


def test_the_interface_of_label_studio_is_xml_with_both_answers_and_three_choices():
    view = ElementTree.fromstring(comparisons.label_studio_config(POLICY))
    assert [text.get("value") for text in view.iter("Text")] == ["$prompt", "$response_a", "$response_b"]
    assert [choice.get("value") for choice in view.iter("Choice")] == ["A", "B", "tie"]


def test_the_guidelines_have_policy_question_and_answers():
    page = comparisons.guidelines(POLICY, TASKS)
    for part in ("40 pairs", "Be kind.", "`calm`", "`A`, `B` or `tie`", comparisons.QUESTION):
        assert part in page


# --- votes


def filled(words=("A", " b ", "Tie"), annotator="ann"):
    table = TASKS.head(len(words)).assign(verdict=list(words), reason="", annotator=annotator)
    return table


def read_back(table, folder, name="ann.csv"):
    table.to_csv(folder / name, index=False)
    return read_verdicts(str(folder / name))


def test_votes_come_back_as_they_were_given(tmp_path):
    votes = check_votes(read_back(filled(), tmp_path), KEY, POLICY)
    assert votes["task_id"].tolist() == TASKS["task_id"].tolist()[:3]
    assert votes["verdict"].tolist() == ["a", "b", "tie"]


def test_votes_of_label_studio_and_argilla_come_back_too(tmp_path):
    studio = []
    for task in comparisons.as_label_studio(TASKS.head(2)):
        result = [{"from_name": "verdict", "value": {"choices": ["A"]}}]
        studio.append(task | {"annotations": [{"completed_by": {"email": "ann"}, "result": result}]})
    (tmp_path / "studio.json").write_text(json.dumps(studio))
    argilla = []
    for record in comparisons.as_argilla(TASKS.iloc[2:4]):
        answers = {"verdict": [{"value": "tie", "user_id": "bo"}]}
        argilla.append(record | {"responses": answers})
    (tmp_path / "argilla.json").write_text(json.dumps(argilla))
    votes = check_votes(read_verdicts(str(tmp_path)), KEY, POLICY)
    by_task = votes.set_index("task_id")
    assert by_task.loc[TASKS["task_id"][:2], "verdict"].tolist() == ["a", "a"]
    assert by_task.loc[TASKS["task_id"][2:4], "verdict"].tolist() == ["tie", "tie"]
    assert by_task["annotator"].value_counts().to_dict() == {"ann": 2, "bo": 2}


BAD = {
    "an unknown task": ({"task_id": "0" * 16}, "task_id"),
    "a word that is no vote": ({"verdict": "C"}, "expected a, b, tie"),
    "a changed answer": ({"response_b": "Something else."}, "response_b: the text was changed"),
    "a changed prompt": ({"prompt": "Other?"}, "prompt: the text was changed"),
    "another policy": ({"policy": "b-1"}, "expected a-1"),
    "an edited policy": ({"policy_digest": "sha256:000000000000"}, "the policy was edited since"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_vote_that_cannot_be_used_is_named_by_file_and_row(name, tmp_path):
    changes, message = BAD[name]
    table = filled()
    for column, value in changes.items():
        table.loc[1, column] = value
    with pytest.raises(VerdictError) as caught:
        check_votes(read_back(table, tmp_path), KEY, POLICY)
    assert "ann.csv, row 3" in str(caught.value)
    assert message in str(caught.value)


def test_swapped_answers_are_noticed(tmp_path):
    """A form whose answers change places would count every vote for the wrong model."""
    table = filled()
    table[["response_a", "response_b"]] = table[["response_b", "response_a"]].to_numpy()
    with pytest.raises(VerdictError, match="the text was changed"):
        check_votes(read_back(table, tmp_path), KEY, POLICY)


def test_two_votes_of_one_person_on_one_pair_are_refused(tmp_path):
    table = pd.concat([filled(), filled(annotator=" Ann ")])
    with pytest.raises(VerdictError, match="two verdicts on one task"):
        check_votes(read_back(table, tmp_path), KEY, POLICY)


def test_an_empty_form_is_refused(tmp_path):
    with pytest.raises(VerdictError, match=r"None of the 3 rows has a verdict.*A, B, tie"):
        check_votes(read_back(filled(("", "", "")), tmp_path), KEY, POLICY)


def test_the_report_has_krippendorffs_alpha():
    rng = np.random.default_rng(0)
    words = np.array(["a", "b", "tie"])
    truth = rng.integers(0, 3, 30)
    rows = []
    table = np.full((3, 30), np.nan)
    for person, name in enumerate(("ann", "bo", "cy")):
        for task in range(30):
            if rng.random() < 0.2:
                continue
            vote = truth[task] if rng.random() < 0.7 else rng.integers(0, 3)
            table[person, task] = vote
            rows.append((f"t{task:02}", words[vote], "", name))
    votes = pd.DataFrame(rows, columns=["task_id", "verdict", "reason", "annotator"])
    found = report_votes(votes, unfilled=4, seed=0)
    expected = krippendorff.alpha(reliability_data=table, level_of_measurement="nominal")
    assert found["alpha"] == pytest.approx(expected)
    assert found["interval"][0] < found["alpha"] < found["interval"][1]
    assert (found["votes"], found["unfilled"]) == (len(votes), 4)
    assert sum(found["by_annotator"]["ann"].values()) == (votes["annotator"] == "ann").sum()


def test_the_majority_decides_and_a_draw_is_a_tie():
    votes = pd.DataFrame(
        [("t1", "a"), ("t1", "a"), ("t1", "b"), ("t2", "a"), ("t2", "b"), ("t3", "tie"), ("t4", "b")],
        columns=["task_id", "verdict"],
    )
    assert decide_by_majority(votes).to_dict() == {"t1": "a", "t2": "tie", "t3": "tie", "t4": "b"}
