import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realignment.intake import clean_pairs
from realignment.records import PAIR_COLUMNS, TRUTH_COLUMNS, DataError, digest_table

GOOD = {"pair_id": "a", "prompt": "Why?", "chosen": "Because.", "rejected": "No idea."}


def table(*rows, **columns):
    return pd.DataFrame(list(rows) if rows else columns, dtype=object)


def clean(raw, *, invalid="skip", max_prompt_chars=1000, long_prompts="drop"):
    return clean_pairs(raw, invalid=invalid, max_prompt_chars=max_prompt_chars, long_prompts=long_prompts)


def test_standard_pairs_pass_through_word_for_word():
    pairs = clean(table(GOOD | {"domain": "money", "prompt": " Why? \n"})).pairs
    assert tuple(pairs.columns) == PAIR_COLUMNS
    row = pairs.iloc[0]
    assert (row.pair_id, row.prompt, row.chosen, row.domain) == ("a", " Why? \n", "Because.", "money")
    assert pairs[["messages", "correction"]].isna().all(axis=None)


def test_pairs_survive_parquet_with_the_same_digest(tmp_path):
    pairs = clean(table(GOOD | {"chosen_complies": None, "rejected_complies": True})).pairs
    pairs.to_parquet(tmp_path / "pairs.parquet")
    again = pd.read_parquet(tmp_path / "pairs.parquet")
    pd.testing.assert_frame_equal(again, pairs)
    assert digest_table(again) == digest_table(pairs)


def test_ids_made_from_content_do_not_depend_on_order():
    rows = [{"prompt": f"p{i}", "chosen": "a", "rejected": "b"} for i in range(3)]
    ids, backwards = (clean(table(*order)).pairs["pair_id"].tolist() for order in (rows, rows[::-1]))
    assert ids == backwards[::-1]
    assert len(set(ids)) == 3


@pytest.mark.parametrize("value", [True, 1, 1.0, "true", "True", "1", np.True_])
def test_truth_is_read_from_every_common_spelling(value):
    pairs = clean(table(GOOD | {"chosen_complies": value})).pairs
    assert pairs["chosen_complies"].tolist() == [True]
    assert pairs["rejected_complies"].isna().all()


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"prompt": None}, "prompt", "is null"),
        ({"prompt": float("nan")}, "prompt", "is null"),
        ({"chosen": ""}, "chosen", "empty text"),
        ({"rejected": " \n\t"}, "rejected", "empty text"),
        ({"rejected": "Because. "}, "rejected", "equal to chosen"),
        ({"chosen": 3}, "chosen", "expected text, found int"),
        ({"chosen": [{"role": "assistant", "content": "x"}]}, "chosen", "expected text, found list"),
        ({"prompt": "a\ud800"}, "prompt", "surrogate"),
        ({"prompt": "x" * 1001}, "prompt", "longer than 1000"),
        ({"pair_id": "a"}, "pair_id", "same pair_id"),
        ({"pair_id": None}, "pair_id", "is null"),
        ({"pair_id": 1.5}, "pair_id", "found float"),
        ({"prompt": "Why?"}, "prompt", "same prompt"),
        ({"domain": 7}, "domain", "found int"),
        ({"correction": "\udfff"}, "correction", "surrogate"),
        ({"chosen_complies": "maybe"}, "chosen_complies", "'maybe'"),
        ({"rejected_complies": 2}, "rejected_complies", "found 2"),
        ({"rejected_complies": [True]}, "rejected_complies", "[True]"),
    ],
)
def test_a_bad_row_is_set_aside_with_its_field_and_reason(change, field, reason):
    columns = {"domain": None, "correction": None, "chosen_complies": None, "rejected_complies": None}
    bad = columns | GOOD | {"pair_id": "b", "prompt": "What?"} | change
    result = clean(table(columns | GOOD, bad))
    assert result.pairs["pair_id"].tolist() == ["a"]
    rejected = result.rejected_rows.iloc[0]
    assert (rejected.row, rejected.field) == (2, field)
    assert reason in rejected.reason
    assert 0 < len(rejected.content) <= 200 + 10 * rejected.content.count("\\")
    if "longer" not in reason:
        with pytest.raises(DataError, match=f"row 2, field {field}"):
            clean(table(columns | GOOD, bad), invalid="fail")


def test_rejected_rows_name_the_line_of_the_source():
    raw = table(GOOD, GOOD | {"pair_id": "b", "chosen": ""}).set_axis(pd.Index([3, 9], name="row"), axis=0)
    assert clean(raw).rejected_rows["row"].tolist() == [9]


def test_failing_lists_the_first_ten_rows_and_counts_the_rest():
    raw = table(GOOD, *(GOOD | {"pair_id": str(i), "chosen": ""} for i in range(12)))
    with pytest.raises(
        DataError, match=r"(?s)12 of 13 rows.*row 2, field chosen.*row 11, .*and 2 more"
    ) as error:
        clean(raw, invalid="fail")
    assert "row 12" not in str(error.value)


def test_long_prompts_are_dropped_and_counted_cut_or_fatal():
    raw = table(GOOD, GOOD | {"pair_id": "b", "prompt": "word " * 10 + "end?"})
    dropped = clean(raw, max_prompt_chars=20)
    assert dropped.report["reasons"] == {"prompt: longer than 20 characters": 1}
    cut = clean(raw, max_prompt_chars=20, long_prompts="truncate")
    assert cut.report["truncated"] == 1
    assert cut.pairs["prompt"][1] == "d word word word end?"[-20:]
    with pytest.raises(DataError, match="row 2, field prompt: longer than 20"):
        clean(raw, max_prompt_chars=20, long_prompts="fail")


def test_an_empty_table_lists_what_was_found_and_expected():
    with pytest.raises(
        DataError, match=r"no rows. Found columns: prompt. Expected: prompt, chosen, rejected"
    ):
        clean(pd.DataFrame({"prompt": []}))


def test_no_usable_row_is_an_error_with_the_reasons():
    with pytest.raises(DataError, match=r"None of the 1 rows.*chosen: empty text"):
        clean(table(GOOD | {"chosen": ""}))


def test_columns_that_are_not_read_are_reported():
    assert clean(table(GOOD | {"score": 1, "messages": "x"})).report["ignored_columns"] == [
        "score",
        "messages",
    ]


cells = st.one_of(
    st.text(max_size=3), st.none(), st.integers(0, 2), st.booleans(), st.just(["x"]), st.floats()
)


rows = st.lists(
    st.fixed_dictionaries(dict.fromkeys((*GOOD, *TRUTH_COLUMNS, "domain", "correction"), cells)), max_size=8
)


@settings(max_examples=150, deadline=None)
@given(rows, st.sampled_from(["drop", "truncate"]))
def test_nothing_disappears(drawn, long_prompts):
    goods = [GOOD | {"pair_id": f"good {i}", "prompt": f"{i}?"} for i in range(len(drawn) + 1)]
    result = clean(table(*goods, *drawn), max_prompt_chars=4, long_prompts=long_prompts)
    assert len(result.pairs) + len(result.rejected_rows) == len(goods) + len(drawn)
    assert result.report["pairs"] + result.report["rejected"] == result.report["rows"]
    assert sum(result.report["reasons"].values()) == len(result.rejected_rows)
    assert result.pairs["pair_id"].is_unique
    assert not result.pairs[["pair_id", "prompt", "chosen", "rejected"]].isna().any(axis=None)
