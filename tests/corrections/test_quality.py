"""The gate: each flaw by itself, and topics against people's corrections of the sample."""

import json

import numpy as np
import pandas as pd
import pytest
from command_line import ROOT
from made_up_pairs import make_pairs

from realignment.corrections import QualityGate, assess_quality
from realignment.corrections.quality import Flaw, topic_shares

GATE = QualityGate(
    min_words=4, max_words=30, min_topic=0.8, max_copied=0.5, min_distinct=0.7, allow_refusal=False
)
GOOD = "Gold pays no income and its price swings from year to year."
FINE = {"complete": True, "topic": 1.0, "copied": 0.0}


def test_a_sound_candidate_has_no_flaw():
    assert GATE.find_flaws(GOOD, **FINE) == []


@pytest.mark.parametrize(
    ("response", "measured", "flaw"),
    [
        ("", {}, Flaw.EMPTY),
        (" \n", {}, Flaw.EMPTY),
        (GOOD, {"complete": False}, Flaw.CUT_OFF),
        ("Gold pays none.", {}, Flaw.SHORT),
        (" ".join(map(str, range(31))), {}, Flaw.LONG),
        ("gold is gold and " * 5, {}, Flaw.REPETITIVE),
        ("I'm sorry, I can't help with that question.", {}, Flaw.REFUSAL),
        (GOOD, {"topic": 0.79}, Flaw.OFF_TOPIC),
        (GOOD, {"copied": 0.51}, Flaw.COPY),
    ],
)
def test_each_flaw_is_named(response, measured, flaw):
    assert GATE.find_flaws(response, **{**FINE, **measured}) == [flaw]


def test_a_refusal_passes_where_the_policy_asks_for_one():
    gate = QualityGate(4, 30, 0.8, 0.5, 0.7, allow_refusal=True)
    assert gate.find_flaws("I'm sorry, I can't help with that question.", **FINE) == []


def test_a_topic_that_cannot_be_told_is_no_flaw():
    assert GATE.find_flaws(GOOD, complete=True, topic=float("nan"), copied=0.0) == []


def naive_topic_share(text, own, others):
    """One text, one context at a time."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.metrics.pairwise import cosine_similarity

    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    vectors.fit([*others, own])
    likeness = [cosine_similarity(*vectors.transform([text, c]))[0, 0] for c in (own, *others)]
    return np.mean([likeness[0] > other for other in likeness[1:]])


def test_a_topic_share_matches_one_comparison_at_a_time():
    contexts = ["gold and inflation", "a dog that limps", "pasta with garlic", "a rental deposit"]
    text = "Gold held its price when inflation rose; a deposit does not."
    for own in contexts:
        others = [context for context in contexts if context != own]
        (share,) = topic_shares([text], [own], others, seed=0)
        assert share == pytest.approx(naive_topic_share(text, own, others))


def test_a_share_needs_another_context():
    assert np.isnan(topic_shares(["Gold."], ["gold"], ["gold"], seed=0)).all()
    assert len(topic_shares([], [], ["gold"], seed=0)) == 0


@pytest.fixture(scope="module")
def corrected():
    lines = (ROOT / "data/01_raw/sample/pairs.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row.get("correction")]
    return make_pairs(
        *({k: row[k] for k in ("pair_id", "prompt", "chosen", "rejected", "correction")} for row in rows)
    )


def candidates(pairs, responses):
    return pd.DataFrame({"pair_id": pairs["pair_id"], "response": responses, "complete": True})


def test_peoples_corrections_are_on_topic_and_swapped_ones_are_not(corrected):
    gate = QualityGate(8, 250, 0.8, 0.5, 0.7, allow_refusal=False)
    own = assess_quality(candidates(corrected, corrected["correction"]), corrected, gate, seed=0)
    shuffled = np.roll(corrected["correction"].to_numpy(), 7)
    swapped = assess_quality(candidates(corrected, shuffled), corrected, gate, seed=0)
    assert (own["flaws"] == "").mean() >= 0.9
    assert (swapped["flaws"] == "off topic").mean() >= 0.7


def test_a_candidate_is_compared_with_both_violating_responses(corrected):
    for response in ("chosen", "rejected"):
        copies = assess_quality(candidates(corrected, corrected[response]), corrected, GATE, seed=0)
        assert (copies["copied"] == 1).all()
        assert copies["flaws"].str.contains("copies").all()


def test_no_candidates_are_an_empty_table_with_all_columns(corrected):
    empty = assess_quality(candidates(corrected, corrected["correction"]).iloc[:0], corrected, GATE, seed=0)
    assert list(empty.columns[3:]) == ["words", "topic", "copied", "distinct", "flaws"]
