"""Accuracy by task through the real lm-evaluation-harness, against choices scored one by one."""

import json
import math
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from tiny_models import PARAMETERS, load_model, save_model

from realignment.evaluation import capability, capability_tasks
from realignment.evaluation.capability import (
    COLUMNS,
    compare_models,
    question_scores,
    tabulate_capability,
)
from realignment.evaluation.capability_tasks import check_tasks, final_number, local_task, score_solution
from realignment.parameters import CapabilityFile, CapabilityParameters
from realignment.records import DataError

UTILITY = Path(__file__).parents[3] / "shared/data/utility"
QUESTIONS = [
    {"question": f"Which is number {i}?", "choices": ["one", "two", "three!", "4our"], "answer": (3 * i) % 4}
    for i in range(8)
]
SUMS = [{"question": f"What is {i} + 1?", "answer": f"{i} plus 1.\n#### {i + 1}"} for i in range(4)]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def check(**settings):
    return CapabilityParameters(**{"questions": None} | settings)


def no_model(*_):
    raise AssertionError("a model was loaded")


def test_nothing_asked_is_an_empty_table(monkeypatch):
    monkeypatch.setattr(capability, "load_configured_model", no_model)
    table = compare_models({"before": "a", "after": "b"}, PARAMETERS, check())
    assert (len(table), tuple(table.columns)) == (0, COLUMNS)
    assert list(tabulate_capability(table, np.random.default_rng(0))) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"questions": "none.jsonl"},
            r"at none.jsonl: expected JSON Lines.*capability.questions`",
        ),
        ({"files": {"maths": "none.jsonl"}}, r"at none.jsonl.*`evaluation.capability.files.maths`"),
        ({"text": "none.txt"}, r"none\.txt"),
    ],
)
def test_a_missing_file_stops_before_a_model_is_loaded(settings, message, monkeypatch, tmp_path):
    monkeypatch.setattr(capability, "load_configured_model", no_model)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        compare_models({"before": "a", "after": "b"}, PARAMETERS, check(**settings))


def test_an_unknown_task_names_near_ones():
    known = ["hellaswag", "gsm8k", "mmlu", "arc_easy", "arc_challenge"]
    check_tasks(["gsm8k"], lambda: known)
    with pytest.raises(DataError, match=r"no task 'helaswag'; near names: hellaswag\. Correct"):
        check_tasks(["gsm8k", "helaswag"], lambda: known)
    with pytest.raises(DataError, match=r"no task 'zzz'; no name is near"):
        check_tasks(["zzz"], lambda: known)


@pytest.mark.slow
def test_the_documented_tasks_are_the_harness_s_own_and_a_typo_stops_before_a_model_is_loaded(monkeypatch):
    check_tasks(
        [
            "mmlu", "hellaswag", "gsm8k", "gpqa_main_zeroshot", "arc_easy", "arc_challenge", "truthfulqa_mc2",
            "ifeval",
        ]
    )  # fmt: skip
    monkeypatch.setattr(capability, "load_configured_model", no_model)
    with pytest.raises(DataError, match=r"no task 'truthfulqa_mc3'; near names: .*truthfulqa_mc2"):
        compare_models({"before": "a", "after": "b"}, PARAMETERS, check(tasks=["truthfulqa_mc3"]))


def test_questions_that_cannot_be_fetched_say_what_to_do(monkeypatch):
    class Unreachable:
        def load(self, names):
            raise OSError("couldn't reach the Hub")

    monkeypatch.setattr(capability_tasks, "task_index", lambda *, named: Unreachable())
    with pytest.raises(DataError, match=r"'gsm8k' could not be fetched: couldn't reach the Hub\..*files"):
        capability_tasks._fetch("gsm8k")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "?", "answer": 0, "choices": ["one"]}, r"row 1: expected at least two `choices`"),
        ({"question": "?", "answer": 2, "choices": ["a", "b"]}, r"row 1: .* 0 to 1, found 2"),
        ({"question": "?", "answer": "a", "choices": ["a", "b"]}, r"row 1: .* 0 to 1, found 'a'"),
        ({"question": "?", "answer": " "}, r"row 1: expected an `answer`"),
        ({"question": "?", "choices": ["a", "b"]}, r"no column 'answer'; found question, choices"),
    ],
)
def test_a_row_that_is_no_question_is_named(row, message, tmp_path):
    file = CapabilityFile(path=write(tmp_path / "q.jsonl", [row]))
    with pytest.raises(DataError, match=message):
        local_task("q", file)


@pytest.mark.skipif(not UTILITY.is_dir(), reason="needs the public questions of the shared data")
@pytest.mark.parametrize(
    ("name", "form", "shots", "asked"),
    [("mmlu", "letters", 0, 1000), ("hellaswag", "continuation", 0, 1000), ("gsm8k", None, 5, 295)],
)
def test_public_questions_are_read_as_they_are(name, form, shots, asked):
    task = local_task(name, CapabilityFile(path=str(UTILITY / f"{name}.jsonl.gz"), form=form, shots=shots))
    splits = task["custom_dataset"]()
    assert len(splits["test"]) == asked
    for row in splits["test"]:
        if form is None:
            assert score_solution(row, [row["answer"]]) == {"exact_match": 1.0}
            assert final_number(row["answer"].rpartition("####")[2]) is not None
        else:
            assert len(row["options"]) == 4


def test_examples_leave_questions_to_ask(tmp_path):
    file = CapabilityFile(path=write(tmp_path / "q.jsonl", QUESTIONS), shots=8)
    with pytest.raises(DataError, match=r"has 8 questions, and `shots` takes 8"):
        local_task("q", file)


def test_parameters_refuse_what_would_be_mixed_up():
    for settings, message in [
        ({"files": {"text": "a"}}, "another part"),
        ({"files": {"arc": "a"}, "tasks": ["arc"]}, "in `tasks` and in `files`"),
        ({"metrics": {"arc": "acc"}}, "not in `tasks`"),
    ]:
        with pytest.raises(ValidationError, match=message):
            check(**settings)
    assert check(questions="a", files={"b": "c", "d": None}).local_files() == {
        "questions": CapabilityFile(path="a"), "b": CapabilityFile(path="c")
    }  # fmt: skip


def sample(doc, metrics, name="none"):
    return {"doc_id": doc, "filter": name, "metrics": list(metrics)} | metrics


def test_only_the_first_way_of_reading_an_answer_counts():
    samples = [
        sample(doc, {"exact_match": value}, name)
        for name, values in {"strict": [1, 0, 1], "flexible": [0, 1, 0]}.items()
        for doc, value in zip([2, 0, 1], values, strict=True)
    ]
    scores, metric = question_scores("gsm", samples)
    assert (scores.tolist(), metric) == ([0, 1, 1], "exact_match")


def test_the_length_normalised_accuracy_comes_first_and_another_can_be_named():
    samples = [sample(0, {"acc": 1.0, "acc_norm": 0.0})]
    assert question_scores("arc", samples)[1] == "acc_norm"
    assert question_scores("arc", samples, "acc")[0].tolist() == [1.0]
    ifeval = [sample(0, {"prompt_level_strict_acc": True, "inst_level_strict_acc": [True, False]})]
    assert question_scores("ifeval", ifeval)[0].tolist() == [1.0]


def test_a_task_without_a_usable_metric_is_refused_by_name():
    with pytest.raises(DataError, match=r"'wiki' reports word_perplexity; expected one of acc_norm, acc"):
        question_scores("wiki", [sample(0, {"word_perplexity": 3.0})])
    with pytest.raises(DataError, match=r"'arc' reports acc; expected one of f1"):
        question_scores("arc", [sample(0, {"acc": 1.0})], "f1")
    with pytest.raises(DataError, match=r"'inst' of the task 'ifeval' is not a number from 0 to 1"):
        question_scores("ifeval", [sample(0, {"inst": [True, False]})], "inst")


def scores_of(**tasks):
    parts = [
        pd.DataFrame({"task": name, "question": range(len(before)), "before": before, "after": after})
        for name, (before, after) in tasks.items()
    ]
    return pd.concat(parts, ignore_index=True)


def test_a_loss_on_one_task_does_not_vanish_beside_another():
    """GSM8K from 70 to 24 % beside a long, unchanged MMLU: pooled, it would be a loss of 2.5 points."""
    same = [1.0] * 600 + [0.0] * 200
    scores = scores_of(mmlu=(same, same), gsm=([1.0] * 35 + [0.0] * 15, [1.0] * 12 + [0.0] * 38))
    rows = {row["group"]: row for row in tabulate_capability(scores, np.random.default_rng(0))}
    assert set(rows) == {"task:mmlu", "task:gsm"}
    assert rows["task:mmlu"]["difference"] == 0
    assert rows["task:gsm"]["difference"] == pytest.approx(-0.46)
    assert rows["task:gsm"]["difference_high"] < -0.25


def test_one_task_has_its_row_and_no_pooled_one():
    (row,) = tabulate_capability(scores_of(mmlu=([1.0, 0.0], [1.0, 1.0])), np.random.default_rng(0))
    assert (row["metric"], row["group"], row["n"], row["after"]) == ("capability", "task:mmlu", 2, 1.0)


def test_scores_between_zero_and_one_are_compared_as_means():
    """As of TruthfulQA's mc2: the probability of the true answers."""
    before, after = [0.2, 0.5, 0.4, 0.9], [0.3, 0.7, 0.5, 0.8]
    (row,) = tabulate_capability(scores_of(mc2=(before, after)), np.random.default_rng(0))
    assert (row["before"], row["after"]) == (pytest.approx(0.5), pytest.approx(0.575))
    assert row["test"] == "Wilcoxon signed-rank"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3 and then 28", "28"), ("it costs $1,250.00.", "1250"), ("a loss of -7 %", "-7"), ("1/2", "2"),
        ("-$3.50", "-3.5"), ("none", None), ("", None),
    ],
)  # fmt: skip
def test_the_final_number_of_a_text(text, number):
    assert final_number(text) == (None if number is None else Decimal(number))


@pytest.mark.parametrize(
    ("answer", "reply", "right"),
    [
        ("52 - 8\n#### 16", "Ahito ran 16 miles.", True),
        ("#### 1,600", "so it is $1600.00", True),
        ("#### 16", "#### 16\n\nThat is 16 miles in 2 days.", True),
        ("#### 16", "16 miles in 2 days", False),
        ("#### 16", "I do not know", False),
        ("Paris", "  paris. ", True),
        ("Paris", "Paris, France", False),
    ],
)
def test_a_solution_is_right_where_its_final_number_is(answer, reply, right):
    assert score_solution({"answer": answer}, [reply]) == {"exact_match": float(right)}


def choice_logprobs(model, tokenizer, context, choices):
    """Each choice after the context, one forward pass each: slow, and obviously right."""
    prompt = tokenizer(context)["input_ids"]
    for choice in choices:
        ids = tokenizer(choice, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        yield float(logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).sum())


FORMS = {
    "sum": ({"metric": "acc"}, "Question: {question}\nAnswer:", [" one", " two", " three!", " 4our"]),
    "norm": ({}, "Question: {question}\nAnswer:", [" one", " two", " three!", " 4our"]),
    "continuation": (
        {"form": "continuation", "metric": "acc"}, "{question}", [" one", " two", " three!", " 4our"]
    ),
    "letters": (
        {"form": "letters"}, "Question: {question}\nA. one\nB. two\nC. three!\nD. 4our\nAnswer:",
        [" A", " B", " C", " D"],
    ),
    "chat": (
        {"chat_template": True, "metric": "acc"}, "User: {question}\n\nAssistant:",
        ["one", "two", "three!", "4our"],
    ),
    "example": (
        {"shots": 1, "metric": "acc"},
        "Question: Which is number 0?\nAnswer: one\n\nQuestion: {question}\nAnswer:",
        [" one", " two", " three!", " 4our"],
    ),
}  # fmt: skip


def naive_scores(path, context, choices, settings):
    model, tokenizer = load_model(path)
    is_normalised = "metric" not in settings
    lengths = [len(choice.strip()) if is_normalised else 1 for choice in choices]
    right = []
    for question in QUESTIONS[settings.get("shots", 0) :]:
        sums = list(choice_logprobs(model, tokenizer, context.format(question=question["question"]), choices))
        best = max(range(4), key=lambda index, sums=sums: sums[index] / lengths[index])
        right.append(float(best == question["answer"]))
    return right


@pytest.mark.slow
def test_each_way_of_asking_scores_as_one_by_one(tmp_path):
    models = {side: save_model(tmp_path / side, seed=seed) for seed, side in enumerate(("before", "after"))}
    path = write(tmp_path / "questions.jsonl", QUESTIONS)
    files = {name: {"path": path} | settings for name, (settings, _, _) in FORMS.items()}
    table = compare_models(models, PARAMETERS, check(files=files, batch_size=3))
    assert tuple(table.columns) == COLUMNS
    for name, (settings, context, choices) in FORMS.items():
        part = table[table["task"] == name]
        assert part["question"].tolist() == list(range(8 - settings.get("shots", 0)))
        assert set(part["metric"]) == {settings.get("metric", "acc_norm")}
        for side, model in models.items():
            assert part[side].tolist() == naive_scores(model, context, choices, settings), (name, side)
    assert 0 < table[["before", "after"]].to_numpy().mean() < 1


@pytest.mark.slow
def test_a_limit_takes_the_first_questions_and_that_of_a_file_comes_first(tmp_path):
    models = {"before": save_model(tmp_path / "model", seed=0)}
    models["after"] = models["before"]
    path = write(tmp_path / "questions.jsonl", QUESTIONS)
    files = {"few": {"path": path, "limit": 2}}
    sums = {"path": write(tmp_path / "sums.jsonl", SUMS), "shots": 1}
    parameters = check(questions=path, files=files | {"sums": sums}, limit=3, max_new_tokens=4)
    table = compare_models(models, PARAMETERS, parameters)
    assert table.groupby("task").size().to_dict() == {"questions": 3, "few": 2, "sums": 3}
    sums_rows = table[table["task"] == "sums"]
    assert set(sums_rows["metric"]) == {"exact_match"}
    assert sums_rows["before"].isin([0, 1]).all()
    assert table["before"].tolist() == table["after"].tolist()
    assert not math.isnan(table["after"].sum())
