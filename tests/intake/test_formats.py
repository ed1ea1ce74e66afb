import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realignment.intake import clean_pairs
from realignment.intake.formats import PreferenceFormat, detect_format
from realignment.records import TRUTH_COLUMNS, DataError


def table(*rows, **columns):
    return pd.DataFrame(list(rows) if rows else columns, dtype=object)


def clean(raw, *, invalid="skip", max_prompt_chars=1000, long_prompts="drop"):
    return clean_pairs(raw, invalid=invalid, max_prompt_chars=max_prompt_chars, long_prompts=long_prompts)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


cells = st.one_of(
    st.text(max_size=3), st.none(), st.integers(0, 2), st.booleans(), st.just([user("x")]), st.floats()
)


def test_one_user_turn_becomes_a_plain_prompt_and_more_keep_their_messages():
    single = {"prompt": [user("Hi?")], "chosen": [assistant("Yes")], "rejected": [assistant("No")]}
    long = [{"role": "system", "content": "Be kind."}, user("Hé?")]
    result = clean(table(single, single | {"prompt": long}))
    assert result.report["format"] == PreferenceFormat.CONVERSATIONAL
    assert result.pairs["prompt"].tolist() == ["Hi?", "system: Be kind.\n\nuser: Hé?"]
    assert pd.isna(result.pairs["messages"][0])
    assert json.loads(result.pairs["messages"][1]) == long
    assert result.pairs["chosen"].tolist() == ["Yes", "Yes"]


@pytest.mark.parametrize("extra", [{}, {"prompt": "Two?"}], ids=["implicit", "prompt repeated as text"])
def test_the_implicit_prompt_is_the_shared_beginning(extra):
    shared = [user("One?"), assistant("1"), user("Two?")]
    row = {"chosen": [*shared, assistant("2")], "rejected": [*shared, assistant("22")], **extra}
    pair = clean(table(row)).pairs.iloc[0]
    assert json.loads(pair.messages) == shared
    assert (pair.chosen, pair.rejected) == ("2", "22")


def test_messages_may_come_as_numpy_arrays():
    row = {"prompt": [user("Hi?")], "chosen": [assistant("Yes")], "rejected": [assistant("No")]}
    arrays = {name: np.array(messages, dtype=object) for name, messages in row.items()}
    assert clean(pd.DataFrame([arrays])).pairs["prompt"].tolist() == ["Hi?"]


def test_pku_takes_the_better_response_and_the_truth_that_belongs_to_it():
    row = {"prompt": "p", "response_0": "zero", "response_1": "one", "better_response_id": 1,
           "is_response_0_safe": True, "is_response_1_safe": False}  # fmt: skip
    other = row | {"prompt": "q", "better_response_id": 0}
    bad = row | {"prompt": "r", "better_response_id": 2}
    result = clean(table(row, other, bad))
    assert result.pairs[["chosen", "rejected"]].to_numpy().tolist() == [["one", "zero"], ["zero", "one"]]
    assert result.pairs[list(TRUTH_COLUMNS)].to_numpy().tolist() == [[False, True], [True, False]]
    assert result.rejected_rows[["row", "field"]].to_numpy().tolist() == [[3, "better_response_id"]]


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"prompt": "text"}, "prompt", "like the rest of the table, found str"),
        ({"chosen": None}, "chosen", "is null"),
        ({"chosen": []}, "chosen", "empty list"),
        ({"chosen": [user("x")]}, "chosen", "one assistant message"),
        ({"rejected": [assistant("x"), assistant("y")]}, "rejected", "found assistant, assistant"),
        ({"prompt": [user("x"), assistant("y")]}, "prompt", "must end with a user message"),
        ({"prompt": [{"role": "user"}]}, "prompt", "`role` and `content`"),
        ({"prompt": ["Hi"]}, "prompt", "`role` and `content`"),
        ({"prompt": [user(" ")]}, "prompt", "empty message"),
        ({"prompt": [user("\ud800")]}, "prompt", "surrogate"),
    ],
)
def test_a_conversation_that_does_not_fit_is_set_aside(change, field, reason):
    good = {"prompt": [user("Hi?")], "chosen": [assistant("Yes")], "rejected": [assistant("No")]}
    result = clean(table(good, good | {"prompt": [user("Hey?")]}, good | {"prompt": [user("Ho?")]} | change))
    rejected = result.rejected_rows.iloc[0]
    assert (len(result.pairs), rejected.row, rejected.field) == (2, 3, field)
    assert reason in rejected.reason


@pytest.mark.parametrize(
    ("rejected", "field", "reason"),
    [
        ([user("Other?"), assistant("b")], "chosen", "no common prompt"),
        ([user("Hi?"), assistant("a")], "rejected", "equal to chosen"),
        ([user("Hi?")], "rejected", "found nothing"),
    ],
)
def test_an_implicit_pair_needs_a_common_prompt_and_two_answers(rejected, field, reason):
    good = {"chosen": [user("Hi?"), assistant("a")], "rejected": [user("Hi?"), assistant("b")]}
    found = clean(table(good, good | {"rejected": rejected})).rejected_rows.iloc[0]
    assert found.field == field
    assert reason in found.reason


def test_rows_of_mixed_format_are_rejected_by_the_format_of_the_majority():
    chat = {"prompt": [user("Hi?")], "chosen": [assistant("Yes")], "rejected": [assistant("No")]}
    texts = [{"prompt": f"Why {i}?", "chosen": "Because.", "rejected": "No idea."} for i in range(2)]
    result = clean(table(*texts, chat))
    assert result.report["format"] == PreferenceFormat.STANDARD
    assert result.rejected_rows[["row", "field"]].to_numpy().tolist() == [[3, "prompt"]]


def test_a_long_conversation_loses_its_oldest_turns_first():
    prompt = [
        {"role": "system", "content": "Be kind."},
        user("old " * 10),
        assistant("yes"),
        user("And now?"),
    ]
    row = {"prompt": prompt, "chosen": [assistant("a")], "rejected": [assistant("b")]}
    pair = clean(table(row), max_prompt_chars=60, long_prompts="truncate").pairs.iloc[0]
    assert json.loads(pair.messages) == [prompt[0], prompt[2], prompt[3]]
    shortest = clean(table(row), max_prompt_chars=4, long_prompts="truncate").pairs.iloc[0]
    assert (shortest.prompt, pd.isna(shortest.messages)) == ("now?", True)


def test_missing_columns_name_the_nearest_ones():
    raw = table({"prompt": "p", "choosen": "c", "rejected": "r"})
    with pytest.raises(
        DataError, match=r"no column `chosen`.*Found: prompt, choosen, rejected.*`choosen` may be meant"
    ):
        clean(raw)


def test_pku_columns_are_recognised_though_one_is_missing():
    with pytest.raises(DataError, match="no column `better_response_id`"):
        clean(table({"prompt": "p", "response_0": "c", "response_1": "r"}))


def test_texts_without_a_prompt_are_refused():
    with pytest.raises(DataError, match="Give the prompt as its own column"):
        clean(table({"chosen": "p c", "rejected": "p r"}))


conversations = st.lists(
    st.fixed_dictionaries({name: st.one_of(cells, st.lists(st.one_of(
        st.builds(user, st.text(max_size=2)), st.builds(assistant, st.text(max_size=2)), cells), max_size=4))
        for name in ("chosen", "rejected")}), min_size=1, max_size=6)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(conversations)
def test_nothing_disappears_from_conversations(drawn):
    good = {"chosen": [user("Hi?"), assistant("a")], "rejected": [user("Hi?"), assistant("b")]}
    goods = [{k: [user(f"Hi {i}?"), v[1]] for k, v in good.items()} for i in range(len(drawn) + 1)]
    raw = table(*goods, *drawn)
    assert detect_format(raw) is PreferenceFormat.IMPLICIT
    result = clean(raw)
    assert len(result.pairs) + len(result.rejected_rows) == len(raw)
