"""Which prompts are answered, and what is told of a file of prompts that cannot be used."""

import json

import pandas as pd
import pytest
from made_up_pairs import make_pairs
from tiny_models import PARAMETERS, load_model, save_model

from realignment.evaluation import answers as answers_module
from realignment.evaluation.answers import check_prompts, collect_prompts, select_prompts
from realignment.likelihood.tokenization import chat_messages
from realignment.model.generation import Sampling, generate_texts
from realignment.model.generation import generate_answers as answer_chats
from realignment.parameters import CapabilityParameters, EvaluationParameters
from realignment.records import DataError

PROMPTS = pd.DataFrame(
    {
        "prompt_id": ["e1", "e2", "e3"],
        "prompt": ["How do I save?", "How do I toast bread?", "Sue my lawn?"],
        "domain": ["money", None, "ordinary"], "kind": ["regulated", "ordinary", "look_alike"],
    },
    index=pd.RangeIndex(1, 4, name="row"),
)  # fmt: skip
TALK = json.dumps([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}])
HELD_OUT = make_pairs(
    {"prompt": "Once?", "disposition": "INVERT", "domain": "law"},
    {"prompt": "Twice?", "disposition": "PUNISH", "messages": TALK},
    {"prompt": "Twice?", "disposition": "RETAIN"},
)
COLUMNS = ["prompt_id", "prompt", "messages", "domain", "kind", "origin"]


def test_usable_prompts_pass():
    check_prompts(PROMPTS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompt": ["Why?", " ", "How?"]}, "row 2: prompt is empty"),
        ({"prompt": ["Why?", "How?", None]}, "row 3: prompt is empty"),
        ({"prompt_id": ["a", "b", "a"]}, "row 3: prompt_id is given twice"),
        ({"kind": ["regulated", "lookalike", "x"]}, "row 2: kind is none of regulated, ordinary, look_alike"),
        ({"kind": ["regulated", "ordinary", None]}, "row 3: kind is none of"),
    ],
)
def test_a_prompt_that_cannot_be_used_is_named_by_its_row(change, said):
    with pytest.raises(DataError, match=said):
        check_prompts(PROMPTS.assign(**change))


def test_every_kind_of_mistake_is_told_at_once():
    with pytest.raises(DataError, match=r"row 1: prompt is empty; row 3: kind"):
        check_prompts(PROMPTS.assign(prompt=["", "b", "c"], kind=["ordinary", "ordinary", "odd"]))


def test_missing_columns_are_told_with_those_found():
    with pytest.raises(
        DataError, match=r"lack the columns domain, kind; found prompt_id, prompt.*`evaluation_prompts: none`"
    ):
        check_prompts(PROMPTS[["prompt_id", "prompt"]])


def test_the_prompts_of_held_out_pairs_join_once_with_their_origin():
    table = collect_prompts(PROMPTS, HELD_OUT, judged=True)
    assert list(table.columns) == COLUMNS
    assert table["prompt_id"].tolist() == ["e1", "e2", "e3", "p0", "p1"]
    assert table["kind"].tolist() == ["regulated", "ordinary", "look_alike", "held_out", "held_out"]
    assert table["origin"].isna().tolist() == [True, True, True, False, False]
    assert table["origin"].tolist()[3:] == ["INVERT", "PUNISH"]
    assert table["messages"].tolist()[4] == TALK


def test_no_evaluation_prompts_leave_the_held_out_ones():
    none = pd.DataFrame(index=pd.RangeIndex(1, 1, name="row"))
    table = collect_prompts(none, HELD_OUT, judged=True)
    assert table["prompt_id"].tolist() == ["p0", "p1"]
    assert collect_prompts(none, HELD_OUT.iloc[:0], judged=True).empty


def test_broken_prompts_are_refused_before_anything_is_answered():
    with pytest.raises(DataError, match="prompt_id is given twice"):
        collect_prompts(PROMPTS.assign(prompt_id="same"), HELD_OUT, judged=True)


def test_nothing_is_answered_where_no_rule_can_judge():
    table = collect_prompts(PROMPTS, HELD_OUT, judged=False)
    assert (len(table), list(table.columns)) == (0, COLUMNS)


def settings(**changes):
    values = {"max_new_tokens": 6, "batch_size": 2, "capability": CapabilityParameters(questions=None)}
    return EvaluationParameters(**(values | changes))


EVALUATION = settings()


def generate_answers(prompts, paths, parameters=EVALUATION, seed=3):
    return answers_module.generate_answers(prompts, paths, PARAMETERS, parameters, seed=seed)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {side: save_model(folder / side, seed=seed) for seed, side in enumerate(("before", "after"))}


def test_each_model_answers_every_prompt_in_its_own_column(paths):
    prompts = collect_prompts(PROMPTS, HELD_OUT, judged=True)
    table = generate_answers(prompts, paths)
    pd.testing.assert_frame_equal(table[COLUMNS], prompts)
    assert (table["before"] != table["after"]).any()
    for side, path in paths.items():
        chats = [*map(chat_messages, prompts["prompt"][:4]), json.loads(TALK)]
        model, tokenizer = load_model(path)
        assert table[side].tolist() == generate_texts(model, tokenizer, chats, max_new_tokens=6, batch_size=1)


def test_no_prompts_are_answered_without_loading_a_model():
    prompts = collect_prompts(PROMPTS, HELD_OUT, judged=False)
    table = generate_answers(prompts, {"before": "no such folder"})
    columns = [*COLUMNS, "sample", "before", "before_cut", "before_entropy"]
    assert (len(table), list(table.columns)) == (0, columns)


def test_every_answer_says_whether_it_was_cut_and_how_sure_the_model_was(paths):
    prompts = collect_prompts(PROMPTS, HELD_OUT, judged=True)
    long = generate_answers(prompts, paths, settings(max_new_tokens=60))
    short = generate_answers(prompts, paths, settings(max_new_tokens=2))
    for side, path in paths.items():
        chats = [*map(chat_messages, prompts["prompt"][:4]), json.loads(TALK)]
        model, tokenizer = load_model(path)
        alone = answer_chats(model, tokenizer, chats, max_new_tokens=60, batch_size=1)
        assert long[f"{side}_cut"].tolist() == [not answer.complete for answer in alone]
        assert long[f"{side}_entropy"].tolist() == pytest.approx([one.entropy for one in alone], rel=1e-3)
        assert short[f"{side}_cut"].sum() >= long[f"{side}_cut"].sum()
    assert short[["before_cut", "after_cut"]].to_numpy().any()
    assert (long["sample"] == 0).all()


def test_samples_differ_and_depend_on_seed_and_prompt_alone(paths):
    prompts = collect_prompts(PROMPTS, HELD_OUT, judged=True)
    drawn = settings(samples=3, temperature=1.0)
    table = generate_answers(prompts, paths, drawn)
    assert table["prompt_id"].tolist() == prompts["prompt_id"].repeat(3).tolist()
    assert table["sample"].tolist() == [0, 1, 2] * 5
    assert table.groupby("prompt_id")["after"].nunique().max() > 1
    fewer = generate_answers(
        prompts.iloc[[3, 1]], paths, settings(samples=2, temperature=1.0, batch_size=7)
    ).set_index(["prompt_id", "sample"])
    same = table.set_index(["prompt_id", "sample"]).loc[fewer.index]
    assert fewer["after"].tolist() == same["after"].tolist()
    assert fewer["before"].tolist() == same["before"].tolist()
    other = generate_answers(prompts, paths, drawn, seed=4)
    assert other["after"].tolist() != table["after"].tolist()


def test_samples_without_a_temperature_are_refused():
    with pytest.raises(ValueError, match="`samples` is 2 at `temperature` 0"):
        settings(samples=2)


def test_a_draw_depends_on_its_stream_and_not_on_its_place(paths):
    model, tokenizer = load_model(paths["before"])
    chats = [chat_messages(text) for text in ("Why?", "a", "How?")]
    options = {"max_new_tokens": 8, "sampling": Sampling(1.0, 1.0, 1)}
    forth = answer_chats(model, tokenizer, chats, batch_size=2, streams=[10, 20, 30], **options)
    back = answer_chats(model, tokenizer, chats[::-1], batch_size=3, streams=[30, 20, 10], **options)
    assert forth == back[::-1]


SPLIT = PROMPTS.assign(split=["test", "development", None])


def select(prompts, split, pairs=HELD_OUT):
    return select_prompts(prompts, pairs, split=split, max_similarity=0.48)["prompt_id"].tolist()


def test_the_prompts_of_the_split_are_selected_and_without_the_column_all_of_them():
    assert select(SPLIT, "test") == ["e1"]
    assert select(SPLIT, None) == ["e1", "e2", "e3"]
    assert select(PROMPTS, "test") == ["e1", "e2", "e3"]
    assert select_prompts(pd.DataFrame(), HELD_OUT, split="test", max_similarity=0.48).empty


def test_a_split_that_no_prompt_has_is_told_with_those_that_there_are():
    with pytest.raises(DataError, match=r"split 'tset'; found: development, test. Set `evaluation.split`"):
        select(SPLIT, "tset")


def test_a_prompt_that_is_in_the_pairs_stops_only_the_run_that_uses_it():
    pairs = make_pairs({"prompt": "How do I toast bread"})
    with pytest.raises(DataError, match=r"1 of 1 evaluation prompts.*e2 ~ pair p0 \(similarity 1\.00\)"):
        select(SPLIT, "development", pairs)
    assert select(SPLIT, "test", pairs) == ["e1"]
