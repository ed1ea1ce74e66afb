"""Which format a table has is told by its columns and by most of its cells."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_rows import assistant, clean, table, user

from realignment.intake.formats import PreferenceFormat, detect_format
from realignment.records import DataError

cells = st.one_of(
    st.text(max_size=3), st.none(), st.integers(0, 2), st.booleans(), st.just([user("x")]), st.floats()
)


def test_rows_of_mixed_format_are_rejected_by_the_format_of_the_majority():
    chat = {"prompt": [user("Hi?")], "chosen": [assistant("Yes")], "rejected": [assistant("No")]}
    texts = [{"prompt": f"Why {i}?", "chosen": "Because.", "rejected": "No idea."} for i in range(2)]
    result = clean(table(*texts, chat))
    assert result.report["format"] == PreferenceFormat.STANDARD
    assert result.rejected_rows[["row", "field"]].to_numpy().tolist() == [[3, "prompt"]]


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
