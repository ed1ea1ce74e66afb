"""Which prompts are answered, and what is told of a file of prompts that cannot be used."""

import json

import pandas as pd
import pytest
from made_up_pairs import make_pairs
from tiny_models import PARAMETERS, load_model, save_model

from realignment.evaluation.answers import check_prompts, collect_prompts, generate_answers, select_prompts
from realignment.likelihood.tokenization import chat_messages
from realignment.model.generation import generate_texts
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


EVALUATION = EvaluationParameters(
    max_new_tokens=6, batch_size=2, capability=CapabilityParameters(questions=None)
)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {side: save_model(folder / side, seed=seed) for seed, side in enumerate(("before", "after"))}


def test_each_model_answers_every_prompt_in_its_own_column(paths):
    prompts = collect_prompts(PROMPTS, HELD_OUT, judged=True)
    table = generate_answers(prompts, paths, PARAMETERS, EVALUATION)
    pd.testing.assert_frame_equal(table[COLUMNS], prompts)
    assert (table["before"] != table["after"]).any()
    for side, path in paths.items():
        chats = [*map(chat_messages, prompts["prompt"][:4]), json.loads(TALK)]
        model, tokenizer = load_model(path)
        assert table[side].tolist() == generate_texts(model, tokenizer, chats, max_new_tokens=6, batch_size=1)


def test_no_prompts_are_answered_without_loading_a_model():
    prompts = collect_prompts(PROMPTS, HELD_OUT, judged=False)
    table = generate_answers(prompts, {"before": "no such folder"}, PARAMETERS, EVALUATION)
    assert (len(table), list(table.columns)) == (0, [*COLUMNS, "before"])


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
