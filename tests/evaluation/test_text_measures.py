"""Measures of single answers by hand, and their rows against the comparison that they are of."""

import numpy as np
import pandas as pd
import pytest

from realignment.evaluation.text_measures import distinct_share, repeated_share, text_rows
from realignment.statistics import compare_means, compare_proportions

TEXTS = pd.DataFrame(
    {
        "prompt": ["a", "b", "c"],
        "before": ["a b a b a", "one two three", "word"],
        "after": ["", "no no no no", "I can't help with that."],
    }
)


def rows_of(table, seed=0):
    return {row["metric"]: row for row in text_rows(table, np.random.default_rng(seed))}


@pytest.mark.parametrize(
    ("text", "n", "share"),
    [
        ("a b a b a", 1, 2 / 5),
        ("a b a b a", 2, 2 / 4),
        ("The the THE dog", 2, 2 / 3),
        ("no no no no no", 4, 1 / 2),
        ("one two three", 4, 1.0),
        ("", 1, 1.0),
    ],
)
def test_distinct_n_by_hand(text, n, share):
    assert distinct_share(text, n) == pytest.approx(share)
    assert repeated_share(text, n) == pytest.approx(1 - share)


def test_an_answer_in_a_loop_is_nearly_all_repetition():
    assert repeated_share("go to the bank and " * 50) > 0.95
    assert repeated_share("Put the card with the highest rate first, then the next one.") == 0


def test_length_diversity_and_refusals_by_hand():
    rows = rows_of(TEXTS)
    assert (rows["response_length"]["before"], rows["response_length"]["after"]) == (3, 3)
    # "a b a b a": ab, ba of 4; three words: 2 of 2; one word: nothing to repeat, so 1.
    assert rows["distinct_2"]["before"] == pytest.approx((2 / 4 + 1 + 1) / 3)
    assert rows["distinct_2"]["after"] == pytest.approx((1 + 1 / 3 + 1) / 3)
    assert rows["distinct_1"]["before"] == pytest.approx((2 / 5 + 1 + 1) / 3)
    assert (rows["refusal_phrases"]["before"], rows["refusal_phrases"]["after"]) == (0, pytest.approx(1 / 3))
    assert {metric: row["unit"] for metric, row in rows.items()} == {
        "response_length": "words", "distinct_1": "share", "distinct_2": "share", "repetition": "share",
        "refusal_phrases": "share",
    }  # fmt: skip


def test_lengths_are_compared_as_means_and_refusals_as_shares():
    rows = rows_of(TEXTS)
    lengths = compare_means([5, 3, 1], [0, 4, 5], np.random.default_rng(0))
    assert rows["response_length"]["difference_low"] == lengths.difference_low
    refusals = compare_proportions([False] * 3, [False, False, True])
    assert rows["refusal_phrases"]["after_high"] == refusals.after_high
    assert rows["refusal_phrases"]["test"] == "McNemar exact"


RECORDED = TEXTS.assign(
    before_cut=pd.array([True, True, False], dtype="boolean"),
    after_cut=pd.array([False, True, None], dtype="boolean"),
    before_entropy=[1.0, 2.0, 3.0],
    after_entropy=[0.5, np.nan, 1.5],
)


def test_cut_answers_and_entropy_are_rows_where_both_sides_know_them():
    rows = rows_of(RECORDED)
    cut = rows["answers_cut"]
    assert (cut["n"], cut["before"], cut["after"], cut["unit"]) == (2, 1.0, 0.5, "share")
    expected = compare_proportions([True, True], [False, True])
    assert (cut["difference_low"], cut["p_value"]) == (expected.difference_low, expected.p_value)
    entropy = rows["entropy"]
    assert (entropy["n"], entropy["before"], entropy["after"]) == (2, 2.0, 1.0)
    assert entropy["unit"] == "nats/token"


def test_without_recorded_measures_there_is_no_row_of_them():
    unknown = RECORDED.assign(before_entropy=np.nan, after_cut=pd.array([None] * 3, dtype="boolean"))
    for table in (TEXTS, unknown):
        assert not {"answers_cut", "entropy"} & set(rows_of(table))


def test_samples_of_a_prompt_count_as_one_item():
    many = pd.concat([RECORDED.dropna()] * 6, ignore_index=True)
    for row in rows_of(many).values():
        assert row["test"] == "cluster sign flip"
    single = rows_of(RECORDED.dropna())
    assert rows_of(many)["answers_cut"]["before"] == single["answers_cut"]["before"]


def test_no_answers_are_no_rows():
    assert rows_of(RECORDED.iloc[:0]) == {}
