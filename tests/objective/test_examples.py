import json

import pandas as pd
import pytest
from tiny_decoders import tiny_tokenizer

from realignment.likelihood.tokenization import PromptTooLongError
from realignment.objective.examples import (
    TRACE,
    PairKind,
    Plan,
    build_examples,
    build_gold_examples,
    classify_pair,
    plan_trace,
    tokenize_columns,
)
from realignment.objective.hybrid import Treatment
from realignment.records import DataError

TOKENIZER = tiny_tokenizer()
PAIRS = pd.DataFrame(
    {
        "pair_id": ["a", "b", "c", "d"],
        "prompt": ["How?", "Why?", "When?", "Who?"],
        "chosen": ["bad", "bad", "fine", "bad"],
        "rejected": ["good", "worse", "poor", "worse"],
        "correction": [None, "right", None, None],
        "messages": [None, None, json.dumps([{"role": "system", "content": "S"}]), None],
        "disposition": ["INVERT", "PUNISH", "RETAIN", "PUNISH"],
        "rejected_verdict": pd.array([True, False, False, False], dtype="boolean"),
    }
)


def build(pairs=PAIRS, **options):
    options = {"use_corrections": True, "affirm": False, "max_response_tokens": 20} | options
    plans = plan_trace(use_corrections=options.pop("use_corrections"), affirm=options.pop("affirm"))
    return build_examples(pairs, TOKENIZER, plans, **options)


def texts(example):
    return [TOKENIZER.decode(response) for response in example.tokens.responses]


@pytest.mark.parametrize(
    ("pair", "kind"),
    [
        ({"disposition": "INVERT", "correction": None}, PairKind.INVERT),
        ({"disposition": "INVERT", "correction": "better"}, PairKind.INVERT),
        ({"disposition": "PUNISH", "correction": "better"}, PairKind.PUNISH_CORRECTED),
        ({"disposition": "PUNISH", "correction": None}, PairKind.PUNISH),
        ({"disposition": "PUNISH", "correction": float("nan")}, PairKind.PUNISH),
        ({"disposition": "RETAIN", "rejected_verdict": True}, PairKind.RETAIN),
        ({"disposition": "RETAIN", "rejected_verdict": False}, PairKind.RETAIN_DECIDED),
        ({"disposition": "RETAIN", "rejected_verdict": None}, PairKind.RETAIN),
        ({"disposition": "RETAIN"}, PairKind.RETAIN),
    ],
)
def test_the_disposition_a_correction_and_a_preference_that_holds_decide_the_kind(pair, kind):
    assert classify_pair(pair) is kind


def test_a_method_can_make_of_each_kind_what_it_likes_and_leave_kinds_out():
    plans = {
        **TRACE,
        PairKind.INVERT: Plan(Treatment.IMITATE, ("rejected",)),
        PairKind.PUNISH: None,
        PairKind.PUNISH_CORRECTED: Plan(Treatment.SUPPRESS, ("chosen",)),
    }
    examples = build_examples(PAIRS, TOKENIZER, plans, max_response_tokens=20)
    assert [(e.pair_id, e.treatment, *texts(e)) for e in examples] == [
        ("a", Treatment.IMITATE, "good<|end|>"),
        ("b", Treatment.SUPPRESS, "bad<|end|>"),
        ("c", Treatment.KEEP, "fine<|end|>"),
    ]
    assert [e.columns for e in examples] == [("rejected",), ("chosen",), ("chosen",)]


def test_a_plan_that_needs_a_response_which_a_pair_lacks_is_refused():
    plans = {**TRACE, PairKind.PUNISH: Plan(Treatment.IMITATE, ("correction",))}
    with pytest.raises(DataError, match="the correction of pair d, and it has none"):
        build_examples(PAIRS, TOKENIZER, plans, max_response_tokens=20)


def test_prompt_and_response_together_can_be_limited_too():
    examples = build(max_tokens=40)
    assert {e.tokens.width for e in examples if len(e.tokens.prompt) < 30} <= set(range(41))
    shortest = min(len(e.tokens.prompt) for e in examples)
    with pytest.raises(PromptTooLongError, match=r"leaves no room .* Drop the pair"):
        build(max_tokens=shortest)


def test_the_audited_error_rate_goes_with_its_pair_and_is_the_objectives_where_nothing_was_audited():
    audited = PAIRS.assign(error_rate=[0.1, None, 0.2, None])
    assert [e.error_rate for e in build(audited, audited=True)] == [0.1, None, 0.2, None]
    assert [e.error_rate for e in build(audited)] == [None] * 4


def test_audited_error_rates_that_are_not_there_are_refused():
    with pytest.raises(DataError, match=r"`loss.error_rate: audited` needs an audit of these very splits"):
        build(audited=True)


def test_a_pair_in_review_is_never_trained_on():
    with pytest.raises(ValueError, match="review"):
        classify_pair({"disposition": "REVIEW"})


def test_an_inverted_pair_prefers_the_rejected_response():
    assert texts(build()[0]) == ["good<|end|>", "bad<|end|>"]


def test_a_punished_pair_prefers_its_correction_over_both_or_suppresses_both():
    examples = build()
    assert texts(examples[1]) == ["right<|end|>", "bad<|end|>", "worse<|end|>"]
    assert texts(examples[3]) == ["bad<|end|>", "worse<|end|>"]
    assert [e.treatment for e in examples] == [
        Treatment.PREFER,
        Treatment.CORRECT,
        Treatment.KEEP,
        Treatment.SUPPRESS,
    ]


def test_without_corrections_every_punished_pair_is_suppressed():
    assert [e.treatment for e in build(use_corrections=False)][1::2] == [Treatment.SUPPRESS] * 2


RETAINED = pd.DataFrame([PAIRS.loc[2]] * 3).assign(
    pair_id=["violates", "complies", "unscored"],
    rejected_verdict=pd.array([False, True, None], dtype="boolean"),
)


@pytest.mark.parametrize("stored", [False, True], ids=["fresh", "read from Parquet"])
def test_a_retained_pair_keeps_its_preference_only_where_its_rejected_response_violates(stored, tmp_path):
    pairs = RETAINED
    if stored:
        RETAINED.to_parquet(tmp_path / "pairs.parquet")
        pairs = pd.read_parquet(tmp_path / "pairs.parquet")
    examples = build(pairs, affirm=True)
    assert [e.treatment for e in examples] == [Treatment.AFFIRM, Treatment.KEEP, Treatment.KEEP]
    assert texts(examples[0]) == ["fine<|end|>", "poor<|end|>"]
    assert texts(examples[1]) == ["fine<|end|>"]
    assert {e.treatment for e in build(pairs, affirm=False)} == {Treatment.KEEP}


def test_no_conflict_is_affirmed():
    assert [e.treatment for e in build(affirm=True)] == [
        Treatment.PREFER,
        Treatment.CORRECT,
        Treatment.AFFIRM,
        Treatment.SUPPRESS,
    ]


def test_a_correction_that_is_missing_as_nan_is_no_correction():
    pairs = PAIRS.assign(correction=float("nan"))
    assert build(pairs)[1].treatment is Treatment.SUPPRESS


def test_responses_are_cut_and_the_messages_of_the_data_are_the_prompt():
    examples = build(max_response_tokens=3)
    assert max(len(response) for e in examples for response in e.tokens.responses) == 3
    assert TOKENIZER.decode(examples[2].tokens.prompt) == "<|system|>S<|end|><|assistant|>"


def test_gold_pairs_are_preferred_over_dispreferred():
    gold = PAIRS.rename(columns={"rejected": "preferred", "chosen": "dispreferred"})
    (first, *_) = build_gold_examples(gold, TOKENIZER, max_response_tokens=20)
    assert texts(first) == ["good<|end|>", "bad<|end|>"]
    assert first.treatment is Treatment.PREFER


def test_columns_are_tokenised_as_each_pair_asks():
    columns = [("chosen",), ("correction", "chosen"), (), ("rejected",)]
    tokens = tokenize_columns(PAIRS, TOKENIZER, columns, max_response_tokens=20)
    assert [[TOKENIZER.decode(r) for r in t.responses] for t in tokens] == [
        ["bad<|end|>"], ["right<|end|>", "bad<|end|>"], [], ["worse<|end|>"],
    ]  # fmt: skip
