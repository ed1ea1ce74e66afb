"""Planted preferences are found, with their sign; what was not planted is not."""

import numpy as np
import pandas as pd
import pytest

from realignment.infer_policy import PRINCIPLE_COLUMNS
from realignment.infer_policy.explain import choose_topic_words, explain_choices
from realignment.records import DataError

WORDS = [
    "the",
    "of",
    "a",
    "gold",
    "plan",
    "shop",
    "river",
    "stone",
    "bread",
    "green",
    "table",
    "paper",
    "road",
]
ADDED = {
    "hedging": "It depends, perhaps.",
    "refusal": "I'm sorry, I can't help with it.",
    "exclamation": "Great!",
    "question": "Which one?",
    "list": "\n- first\n- second",
    "code": "`run`",
    "emoji": "\N{HOT BEVERAGE}",
    "referral": "Ask a solicitor.",
}
SETTINGS = {"topic_words": 0, "folds": 4, "resamples": 50, "min_stability": 0.9, "min_support": 0.03}


def response(rng):
    """Words at random, and each of the marks with probability 0.3."""
    marks = [name for name in ADDED if rng.random() < 0.3]
    text = " ".join(rng.choice(WORDS, rng.integers(8, 40)))
    return " ".join([text, *(ADDED[name] for name in marks)]), marks, len(text.split())


def make_choices(n, utility, *, seed=0, noise=1.0):
    """Pairs of random responses; the one of higher utility, plus logistic noise, was chosen."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(n):
        sides = [response(rng) for _ in range(2)]
        scores = [utility(marks, length) + noise * rng.logistic() for _, marks, length in sides]
        best = int(scores[1] > scores[0])
        rows.append((f"Prompt {number}?", sides[best][0], sides[1 - best][0]))
    return pd.DataFrame(rows, columns=["prompt", "chosen", "rejected"])


def explain(pairs, **changes):
    explanation = explain_choices(pairs, **SETTINGS | {"seed": 0} | changes)
    assert list(explanation.principles.columns) == list(PRINCIPLE_COLUMNS)
    return explanation


def planted(marks, length):
    return 2.5 * ("exclamation" in marks) - 3 * ("hedging" in marks) + 2 * ("list" in marks) - 0.08 * length


PLANTED = {"exclamation-more", "hedging-less", "list-more", "length-less"}


def test_planted_preferences_are_found_with_their_sign_and_nothing_else_is():
    """In six data sets every planted one is found, and at most one that was not planted."""
    others = []
    for seed in range(6):
        explanation = explain(make_choices(500, planted, seed=seed))
        ids = set(explanation.principles["id"])
        assert ids >= PLANTED, seed
        others += sorted(ids - PLANTED)
        for row in explanation.principles.to_dict("records"):
            assert row["coefficient_low"] <= row["coefficient"] <= row["coefficient_high"]
            assert row["low"] < row["agreement"] < row["high"]
            assert row["support"] == row["applies"] / row["pairs"]
        assert explanation.report["accuracy"]["interval"][0] > 0.6
    assert len(others) <= 1, others


def test_choices_at_random_are_explained_by_nothing():
    """False discoveries: of twenty data sets without any preference, at most one yields a principle."""
    yielding = [
        seed
        for seed in range(20)
        if len(explain(make_choices(200, lambda marks, length: 0.0, seed=seed), resamples=20).principles)
    ]
    assert len(yielding) <= 1


def test_of_features_that_say_the_same_one_is_named():
    """Every refusal comes with a question and in the first person here, and with nothing else."""
    pairs = make_choices(500, lambda marks, length: -4 * ("refusal" in marks))
    for side in ("chosen", "rejected"):
        declines = pairs[side].str.contains("I'm sorry")
        pairs[side] = pairs[side].where(~declines, pairs[side] + " Why not?")
    ids = set(explain(pairs).principles["id"])
    assert len(ids) == 1
    assert ids <= {"refusal-less", "first-person-less", "question-less"}


def test_turning_every_choice_around_turns_every_principle_around():
    pairs = make_choices(400, planted)
    turned = pairs.rename(columns={"chosen": "rejected", "rejected": "chosen"})
    one, other = explain(pairs).principles, explain(turned).principles
    swap = {"more": "less", "less": "more"}
    names = {f"{name.rpartition('-')[0]}-{swap[name.rpartition('-')[2]]}" for name in one["id"]}
    assert names == set(other["id"])


def test_the_order_in_which_a_pair_is_looked_at_does_not_matter():
    pairs = make_choices(400, planted)
    first, second = (explain(pairs, seed=seed).principles.set_index("id") for seed in (0, 1))
    assert set(first.index) == set(second.index)
    pd.testing.assert_series_equal(first["agreement"], second["agreement"].loc[first.index])
    assert (first["coefficient"] - second["coefficient"]).abs().max() < 0.3


def test_support_and_agreement_by_hand():
    base = [("Great!", "Fine.")] * 64 + [("Fine.", "Great!")] * 16 + [("Fine.", "Well.")] * 20
    rows = [(f"P{i}", *texts) for i, texts in enumerate(base)]
    pairs = pd.DataFrame(rows, columns=["prompt", "chosen", "rejected"])
    (row,) = explain(pairs).principles.to_dict("records")
    assert (row["id"], row["applies"], row["pairs"]) == ("exclamation-more", 80, 100)
    assert row["agreement"] == 0.8


def test_topic_words_are_the_frequent_ones_without_stop_words():
    pairs = pd.DataFrame(
        {"chosen": ["Gold with this gold", "The River"], "rejected": ["river", "gold there"]}
    )
    assert [feature.name for feature in choose_topic_words(pairs, 2)] == ["word_gold", "word_river"]
    assert choose_topic_words(pairs, 0) == ()


def test_a_word_that_decides_is_found_where_words_are_features():
    def utility(marks, length):
        return 0.0

    pairs = make_choices(400, utility, seed=5)
    flip = pairs["rejected"].str.contains("river") & ~pairs["chosen"].str.contains("river")
    pairs.loc[flip, ["chosen", "rejected"]] = pairs.loc[flip, ["rejected", "chosen"]].to_numpy()
    ids = set(explain(pairs, topic_words=15).principles["id"])
    assert "word-river-more" in ids
    assert len(ids) <= 2


def test_too_few_prompts_are_refused():
    with pytest.raises(DataError, match=r"pairs of 12 prompts; explaining choices takes at least 16"):
        explain(make_choices(12, planted))
