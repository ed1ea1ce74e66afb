"""The labelled answers of models: enough, of many models, apart from the test prompts, read twice in part."""

import json

import pytest
from sample_files import ROOT, SAMPLE, read

from realignment.evaluation.contamination import find_leaks
from realignment.evaluation.labelled import labelled_answers
from realignment.intake.readers import read_table
from realignment.policy import read_policy
from realignment.records import DataError

REGULATED = {"money", "health", "law"}


@pytest.fixture(scope="module")
def answers():
    return read("judge_answers")


@pytest.fixture(scope="module")
def tested_prompts():
    prompts = read("prompts")
    return prompts.loc[prompts["split"] == "test", "prompt"].tolist()


@pytest.fixture(scope="module")
def new_prompts():
    return read("label_prompts")


@pytest.fixture
def answers_to_label(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import answers_to_label

    return answers_to_label


def test_there_are_450_answers_250_of_them_regulated_and_25_to_emergencies(answers):
    regulated = answers["domain"].isin(REGULATED)
    emergency = answers["emergency"].astype(bool)
    assert len(answers) >= 450
    assert regulated.sum() >= 250
    assert emergency.sum() >= 25
    assert regulated[emergency].all()


def test_answers_that_comply_and_that_violate_are_in_every_domain(answers):
    counts = answers.groupby(["domain", "complies"]).size().unstack()
    assert set(counts.index) == REGULATED | {"ordinary"}
    assert counts.min().min() >= 5, counts.to_dict()


def test_no_answer_is_to_a_test_prompt_or_to_one_that_is_nearly_the_same(answers, tested_prompts):
    asked = sorted(set(answers["prompt"]))
    leaks = find_leaks(asked, tested_prompts)
    assert leaks == [], [(asked[leak.prompt], tested_prompts[leak.source]) for leak in leaks]


def test_the_prompts_written_for_the_answers_are_new(new_prompts, tested_prompts):
    """Near no test prompt, no development prompt and no pair; none is written twice."""
    others = [*read("prompts")["prompt"], *read("pairs")["prompt"]]
    assert list(new_prompts.columns) == ["prompt_id", "prompt", "domain", "emergency"]
    assert new_prompts["prompt_id"].is_unique
    assert set(new_prompts["domain"]) == REGULATED | {"ordinary"}
    assert new_prompts["emergency"].sum() >= 25
    assert find_leaks(new_prompts["prompt"].tolist(), others) == []
    for position, prompt in enumerate(new_prompts["prompt"]):
        rest = new_prompts["prompt"].drop(position).tolist()
        assert find_leaks([prompt], rest) == []


def test_every_answer_is_to_a_known_prompt_in_its_domain(answers, new_prompts):
    pairs = read("pairs")
    domains = {**dict(zip(pairs["prompt"], pairs["domain"], strict=True))}
    domains |= dict(zip(new_prompts["prompt"], new_prompts["domain"], strict=True))
    assert (answers["prompt"].map(domains) == answers["domain"]).all()


def test_no_answer_is_there_twice(answers):
    assert answers["answer_id"].is_unique
    assert not answers.duplicated(["prompt", "response"]).any()


def test_answers_are_of_models_before_and_after_training_and_of_several_settings_and_seeds(answers):
    known = answers[answers["model"].notna()]
    assert len(known) >= 230
    counts = known["model"].value_counts()
    assert counts["before"] >= 60
    assert counts.drop("before").sum() >= 100
    assert len(counts) >= 4, counts.to_dict()
    assert {"greedy", "temperature 0.7"} <= set(known["setting"])
    sampled = known["setting"].str.contains("temperature")
    assert known.loc[sampled, "seed"].notna().all()
    assert known.loc[~sampled, "seed"].isna().all()
    assert known["seed"].nunique() >= 3


def test_every_new_label_has_its_reason(answers):
    new = answers[answers["model"].notna()]
    assert new["reason"].str.len().min() >= 4


def test_an_ordinary_answer_that_says_nothing_on_the_question_violates(answers):
    empty = answers[answers["answers_question"].eq(False)]
    assert len(empty) > 0
    assert set(empty["domain"]) == {"ordinary"}
    assert not empty["complies"].any()


def test_a_quarter_of_the_answers_was_read_twice_in_every_domain(answers):
    twice = answers[answers["complies_second"].notna()]
    assert len(twice) >= 0.25 * len(answers)
    assert set(twice["complies_second"]) <= {True, False}
    assert twice.groupby("domain").size().min() >= 15
    assert (twice["domain"].isin(REGULATED)).sum() >= 60


def test_the_evaluation_takes_all_labels_under_the_sample_policy_and_none_under_another(answers):
    table = read_table(str(SAMPLE / "judge_answers.jsonl"))
    policies = ROOT / "conf/base/policies"
    exchanges, labels = labelled_answers(table, read_policy(policies / "assistant-v2.yml"))
    # An ordinary response without content violates, but is no over-refusal, which is what is judged there.
    assert labels == (answers["complies"] | answers["answers_question"].eq(False)).tolist()
    assert [exchange.response for exchange in exchanges] == answers["response"].tolist()
    assert labelled_answers(table, read_policy(policies / "assistant-v3.yml")) == ([], [])


def test_prompts_are_dealt_to_every_combination_in_turn(answers_to_label):
    assert answers_to_label.deal(5, 2, 1) == [[0, 2, 4], [1, 3]]
    hands = answers_to_label.deal(6, 3, 2)
    assert [len(hand) for hand in hands] == [4, 4, 4]
    assert all(len(set(hand)) == len(hand) for hand in hands)


def test_a_test_prompt_is_not_answered(answers_to_label, tested_prompts, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"prompt_id": "x", "prompt": tested_prompts[0].upper(), "domain": "money"}))
    with pytest.raises(DataError, match="1 prompts are test prompts or nearly so"):
        answers_to_label.read_prompts([file], ".*")


def test_models_and_settings_are_read_from_the_command(answers_to_label):
    combinations = answers_to_label.read_combinations(["half=models/a@0.5"], ["greedy", "0.8:11"], None)
    greedy, sampled = combinations
    assert (greedy.name, greedy.folder, greedy.strength, greedy.sampling) == ("half", "models/a", 0.5, None)
    assert (sampled.setting, sampled.sampling.seed) == ("temperature 0.8", 11)
    assert greedy.chat("Hi") == [{"role": "user", "content": "Hi"}]
    (reader,) = answers_to_label.read_combinations(["before=m"], ["greedy"], "assistant-v2")
    assert reader.setting == "policy in the prompt, greedy"
    assert "regulated topics" in reader.chat("Hi")[0]["content"]


def test_a_model_of_half_the_strength_lies_half_way(answers_to_label, tiny_model, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    moved = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(1.0)
    moved.save_pretrained(tmp_path / "moved")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "moved")
    (combination,) = answers_to_label.read_combinations([f"half={tmp_path / 'moved'}@0.5"], ["greedy"], None)
    halved, _ = answers_to_label.load(combination, str(tiny_model))
    reference = AutoModelForCausalLM.from_pretrained(tiny_model)
    for own, other in zip(halved.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(own, other + 0.5)
    with pytest.raises(DataError, match="--base"):
        answers_to_label.load(combination, None)
