"""Multiple-choice accuracy through the real lm-evaluation-harness, against choices scored one by one."""

import json
import math

import pytest
import torch
from tiny_models import PARAMETERS, load_model, save_model

from realignment.evaluation.capability import _accuracies, compare_models, local_task
from realignment.parameters import CapabilityParameters
from realignment.records import DataError

QUESTIONS = [
    {"question": f"Which is number {i}?", "choices": ["one", "two", "three!", "4our"], "answer": (3 * i) % 4}
    for i in range(8)
]


def test_a_missing_file_of_questions_says_what_was_expected(tmp_path):
    with pytest.raises(DataError, match=r"expected JSON Lines with question, choices, answer.*or to null"):
        local_task("questions", tmp_path / "none.jsonl")


def test_nothing_asked_is_an_empty_table():
    table = compare_models({"before": "a", "after": "b"}, PARAMETERS, CapabilityParameters(questions=None))
    assert (len(table), list(table.columns)) == (0, ["task", "question", "before", "after"])


def test_only_the_first_way_of_reading_an_answer_counts():
    samples = [
        {"doc_id": doc, "filter": name, "exact_match": value}
        for name, values in {"strict": [1, 0, 1], "flexible": [0, 1, 0]}.items()
        for doc, value in zip([2, 0, 1], values, strict=True)
    ]
    assert _accuracies("gsm", samples).tolist() == [0, 1, 1]


def test_a_task_without_accuracy_is_refused_by_name():
    with pytest.raises(DataError, match=r"'wiki' reports neither acc nor exact_match; found perplexity"):
        _accuracies("wiki", [{"doc_id": 0, "perplexity": 3.0, "metrics": ["perplexity"]}])


def naive_accuracies(path):
    """Right where the right choice has the largest summed log-probability after the question."""
    model, tokenizer = load_model(path)
    right = []
    for question in QUESTIONS:
        context = tokenizer(f"Question: {question['question']}\nAnswer:")["input_ids"]
        scores = []
        for choice in question["choices"]:
            ids = tokenizer(f" {choice}", add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                logits = model(torch.tensor([context + ids])).logits[0, len(context) - 1 : -1]
            scores.append(float(logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).sum()))
        right.append(float(max(range(4), key=scores.__getitem__) == question["answer"]))
    return right


@pytest.mark.slow
def test_questions_of_a_local_file_are_scored_as_one_by_one(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    models = {side: save_model(tmp_path / side, seed=seed) for seed, side in enumerate(("before", "after"))}
    parameters = CapabilityParameters(questions=str(file), batch_size=3)
    table = compare_models(models, PARAMETERS, parameters)
    assert table["task"].tolist() == ["questions"] * 8
    assert table["question"].tolist() == list(range(8))
    for side, path in models.items():
        assert table[side].tolist() == naive_accuracies(path), side
    assert 0 < table[["before", "after"]].to_numpy().mean() < 1
    limited = compare_models(models, PARAMETERS, parameters.model_copy(update={"limit": 3}))
    assert limited["before"].tolist() == table["before"].tolist()[:3]
    assert not math.isnan(limited["after"].sum())
