"""Rows of each format become one shape, or are set aside with a reason."""

import json

import numpy as np
import pandas as pd
import pytest
from raw_rows import assistant, clean, table, user

from realignment.intake.formats import PreferenceFormat
from realignment.records import TRUTH_COLUMNS


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
    row = clean(table(good, good | {"rejected": rejected})).rejected_rows.iloc[0]
    assert row.field == field
    assert reason in row.reason


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
