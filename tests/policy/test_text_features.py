"""Readable properties of a response: each is found where it is and not where it is not."""

import math

import numpy as np
import pytest

from realignment.policy.text_features import (
    FEATURES,
    distinct_trigram_share,
    is_bare_refusal,
    measure_features,
    trigram_overlap,
)

PLAIN = "The kettle stands on the shelf beside the window."
HAS = {
    "hedging": "It depends on the kettle, which might leak.",
    "certainty": "It definitely boils, guaranteed.",
    "refusal": "I'm sorry, but I can't help with that.",
    "directive": "You should fill it. Then put it on the stove.",
    "referral": "A pharmacist or a solicitor knows.",
    "disclaimer": "This is general information, not legal advice.",
    "warning": "That is illegal and dangerous.",
    "politeness": "Thank you, happy to help.",
    "first_person": "I think my kettle is old.",
    "question": "Which kettle?",
    "exclamation": "Done!",
    "list": "Steps:\n- fill it\n- boil it",
    "heading": "## Kettles\nThey boil.",
    "bold": "It is **hot**.",
    "code": "Run `boil` now.",
    "number": "It takes 3.5 minutes.",
    "link": "See https://example.org for more.",
    "emoji": "Tea \N{HOT BEVERAGE} is ready",
}


def test_every_feature_but_length_has_an_example():
    assert [feature.name for feature in FEATURES[1:]] == list(HAS)


@pytest.mark.parametrize("name", HAS)
def test_a_feature_is_found_where_it_is_and_not_in_plain_prose(name):
    (feature,) = [feature for feature in FEATURES if feature.name == name]
    assert feature.measure(HAS[name]) > 0
    assert feature.measure(PLAIN) == 0


def test_a_measure_is_the_logarithm_of_one_plus_the_occurrences():
    counts = dict(
        zip((f.name for f in FEATURES), measure_features(["Why? I see 3, 4 and 5 of them!"])[0], strict=True)
    )
    expected = {"length": 9, "question": 1, "exclamation": 1, "number": 3, "first_person": 1, "emoji": 0}
    assert {name: counts[name] for name in expected} == pytest.approx(
        {name: math.log(1 + n) for name, n in expected.items()}
    )


def test_no_texts_are_an_empty_table_of_all_features():
    assert measure_features([]).shape == (0, len(FEATURES))
    assert np.isfinite(measure_features(["", "\n"])).all()


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I cannot advise on this. Please ask somebody else.", True),
        ("As an AI, I won't answer that. Is there anything else?", True),
        ("Gold pays no income, and its price swings.", False),
        ("I can't tell you what to do. " + "Gold pays no income and its price swings a lot. " * 4, False),
        ("Gold pays no income. I can't help with more.", False),
        ("", False),
    ],
)
def test_a_bare_refusal_opens_by_declining_and_says_little_else(text, bare):
    assert is_bare_refusal(text) is bare


def test_a_copy_shares_every_word_triple_and_new_words_none():
    assert trigram_overlap("Sell it all, now!", "you must sell it all now") == 1
    assert trigram_overlap("Sell it all now", "Gold pays no income at all") == 0
    assert trigram_overlap("sell it all or keep", "sell it all, she said") == pytest.approx(1 / 3)
    assert trigram_overlap("Sell it", "Sell it") == 0


def test_a_loop_has_few_distinct_word_triples():
    assert distinct_trigram_share("one two three four five") == 1
    assert distinct_trigram_share("go on and " * 10) == pytest.approx(3 / 28)
    assert distinct_trigram_share("two words") == 1
