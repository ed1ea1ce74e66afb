"""Two judgments make one disposition: the whole truth table, and what must hold for any judgments."""

import itertools

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_pairs import POLICY, ScriptedOracle, make_pairs

from realignment.datasets import ParquetDataset
from realignment.judging import judge_pairs
from realignment.parameters import TriageParameters
from realignment.pipelines.triage import nodes
from realignment.records import Disposition, HealthError, digest_table
from realignment.tracking.lineage import build_manifest
from realignment.triage import check_triage, decide_disposition, report_triage, split_by_disposition, triage

VERDICTS = [True, False, None, (True, 0.4), (False, 0.4)]
"""Complies, violates, unscored, and both verdicts below the confidence of 0.5 that the tests ask for."""

KNOWN = {True: True, False: False}
TABLE = {
    (False, True): "INVERT", (False, False): "PUNISH", (False, None): "REVIEW",
    (True, True): "RETAIN", (True, False): "RETAIN", (True, None): "RETAIN",
    (None, True): "REVIEW", (None, False): "REVIEW", (None, None): "REVIEW",
}  # fmt: skip
FLAGS = {(True, True): "both comply", (True, False): "still preferred"}


@pytest.mark.parametrize(
    ("chosen", "rejected", "disposition"),
    [
        (False, True, Disposition.INVERT),
        (False, False, Disposition.PUNISH),
        (False, None, Disposition.REVIEW),
        (True, True, Disposition.RETAIN),
        (True, False, Disposition.RETAIN),
        (True, None, Disposition.RETAIN),
        (None, True, Disposition.REVIEW),
        (None, False, Disposition.REVIEW),
        (None, None, Disposition.REVIEW),
    ],
)
def test_the_truth_table_of_triage(chosen, rejected, disposition):
    assert decide_disposition(chosen, rejected) is disposition


def judged(pairs, script):
    return judge_pairs(pairs, POLICY, ScriptedOracle(script))


def triaged_as(*verdicts, **columns):
    """Triage of one pair per (chosen, rejected)."""
    script = {}
    for number, (chosen, rejected) in enumerate(verdicts):
        script |= {f"chosen {number}": chosen, f"rejected {number}": rejected}
    pairs = make_pairs(*({} for _ in verdicts), **columns)
    return triage(pairs, judged(pairs, script), min_confidence=0.5)


@pytest.mark.parametrize(("chosen", "rejected"), itertools.product(VERDICTS, VERDICTS))
def test_the_whole_truth_table(chosen, rejected):
    (row,) = triaged_as((chosen, rejected)).to_dict("records")
    sure = tuple(
        KNOWN.get(verdict) if not isinstance(verdict, tuple) else None for verdict in (chosen, rejected)
    )
    assert row["disposition"] == TABLE[sure]
    assert [None if pd.isna(row[c]) else row[c] for c in ("chosen_verdict", "rejected_verdict")] == list(sure)
    assert (None if pd.isna(row["flag"]) else row["flag"]) == FLAGS.get(sure)


def test_a_verdict_at_the_least_confidence_counts():
    assert triaged_as(((False, 0.5), (True, 0.5)))["disposition"].tolist() == ["INVERT"]


def test_the_confidence_of_a_pair_is_its_smaller_one():
    table = triaged_as(((True, 0.9), (False, 0.6)), ((True, 0.7), None))
    assert table["confidence"].tolist() == [0.6, 0.0]


def test_the_rules_broken_are_those_of_the_chosen_response():
    table = triaged_as((False, True), (True, False))
    assert table["rules_broken"].tolist() == ["rule-a,rule-b", ""]


@pytest.mark.parametrize(
    ("verdict", "kept"),
    [(True, True), (False, False), (None, False), ((True, 0.4), False), ((True, 0.5), True)],
)
def test_a_correction_stays_only_where_it_is_verified(verdict, kept):
    pairs = make_pairs({"correction": "better"}, {})
    script = {"better": verdict, "chosen 0": False, "rejected 0": False, "chosen 1": True, "rejected 1": True}
    corrections = triage(pairs, judged(pairs, script), min_confidence=0.5)["correction"]
    assert corrections.notna().tolist() == [kept, False]
    assert not kept or corrections[0] == "better"


def test_judgments_in_any_order_give_the_same_triage():
    pairs = make_pairs({"correction": "better"}, {}, {})
    judgments = judged(pairs, {"chosen 0": False, "rejected 0": False, "better": True, "chosen 1": True})
    shuffled = judgments.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(
        triage(pairs, judgments, min_confidence=0.5), triage(pairs, shuffled, min_confidence=0.5)
    )


def test_a_pair_without_judgment_goes_to_review():
    pairs = make_pairs({}, {})
    judgments = judged(pairs, {"chosen 0": False, "rejected 0": True, "chosen 1": False, "rejected 1": True})
    table = triage(pairs, judgments[judgments["pair_id"] == "p0"], min_confidence=0.5)
    assert table["disposition"].tolist() == ["INVERT", "REVIEW"]
    assert table["confidence"].tolist() == [1.0, 0.0]


verdicts = st.lists(st.tuples(st.sampled_from(VERDICTS), st.sampled_from(VERDICTS)), min_size=1, max_size=12)


@settings(deadline=None, max_examples=60)
@given(verdicts)
def test_every_pair_is_in_exactly_one_split_and_keeps_its_place(pairs):
    triaged = triaged_as(*pairs)
    assert triaged["pair_id"].tolist() == [f"p{i}" for i in range(len(pairs))]
    splits = split_by_disposition(triaged)
    assert list(splits) == list(Disposition)
    everywhere = [pair_id for table in splits.values() for pair_id in table["pair_id"]]
    assert sorted(everywhere) == sorted(triaged["pair_id"])
    for disposition, table in splits.items():
        assert (table["disposition"] == disposition).all()
        order = [int(pair_id[1:]) for pair_id in table["pair_id"]]
        assert order == sorted(order)
    report = report_triage(triaged, max_punish_share=1)
    assert report["counts"] == {str(d): len(table) for d, table in splits.items()}
    assert sum(v["count"] for v in report["verdicts"]) == len(pairs)
    assert sum(n for row in report["by_domain"].values() for n in row.values()) == len(pairs)


def test_review_is_empty_when_every_judgment_is_confident():
    triaged = triaged_as(*itertools.product([True, False], [True, False]))
    assert split_by_disposition(triaged)[Disposition.REVIEW].empty


@pytest.fixture
def reported():
    cases = [(False, True), (False, False), (False, False), (True, True), (True, False), (None, True)]
    triaged = triaged_as(*cases, domain=["law", "law", None, "money", "money", "law"])
    triaged.loc[0, "rules_broken"] = "rule-a"
    return triaged.assign(correction=[None, "better", None, "unused", None, None])


def test_the_report_says_how_many_went_where_and_why(reported):
    report = report_triage(reported, max_punish_share=0.5)
    assert report["counts"] == {"INVERT": 1, "PUNISH": 2, "RETAIN": 2, "REVIEW": 1}
    assert report["flags"] == {"both comply": 1, "still preferred": 1}
    assert report["by_rule"] == {"rule-a": 3, "rule-b": 2}
    assert report["by_domain"]["law"] == {"INVERT": 1, "PUNISH": 1, "RETAIN": 0, "REVIEW": 1}
    assert report["by_domain"]["(none)"]["PUNISH"] == 1
    assert report["with_correction"] == 1
    assert report["warnings"] == []
    assert {"chosen": "unscored", "rejected": "complies", "disposition": "REVIEW", "count": 1} in report[
        "verdicts"
    ]
    assert {"chosen": "violates", "rejected": "violates", "disposition": "PUNISH", "count": 2} in report[
        "verdicts"
    ]


def test_much_punish_is_warned_of_with_the_parameters_to_change(reported):
    (warning,) = report_triage(reported, max_punish_share=0.3)["warnings"]
    assert "33% of all (limit 30%)" in warning
    assert "`loss.punish_weight`" in warning
    assert "`loss.kl_weight`" in warning


def counts(**more):
    return {"INVERT": 0, "PUNISH": 0, "RETAIN": 0, "REVIEW": 0} | more


@pytest.mark.parametrize(
    "fine", [counts(INVERT=1, RETAIN=1), counts(RETAIN=5), counts(PUNISH=2, RETAIN=1, REVIEW=9)]
)
def test_conflicts_with_something_to_retain_pass(fine):
    check_triage(fine)


def test_nothing_to_retain_stops_the_run():
    with pytest.raises(HealthError, match=r"No pair is RETAIN \(3 conflicts\).*Add pairs"):
        check_triage(counts(INVERT=2, PUNISH=1, REVIEW=4))


def test_everything_in_review_stops_the_run():
    with pytest.raises(HealthError, match=r"All 4 pairs went to review.*`triage.min_confidence`"):
        check_triage(counts(REVIEW=4))


def test_the_node_seals_the_splits_as_they_load_again(tmp_path):
    pairs = make_pairs({"correction": "better"}, {}, {}, {})
    verdicts_of = {
        "chosen 0": False,
        "rejected 0": False,
        "better": True,
        "chosen 1": True,
        "chosen 2": False,
    }
    judgments = judged(pairs, verdicts_of | {"rejected 2": True})
    facts = {"policy": "d", "policy_version": "2", "oracle": "scripted"}
    manifest = build_manifest("judging", inputs={}, outputs={"pairs": pairs, "judgments": judgments}, **facts)
    *splits, sealed = nodes.triage_pairs(pairs, judgments, manifest, TriageParameters())
    assert [len(table) for table in splits] == [1, 1, 1, 1]
    for table, (name, digest) in zip(splits, sealed["outputs"].items(), strict=True):
        dataset = ParquetDataset(filepath=str(tmp_path / f"{name}.parquet"))
        dataset.save(table)
        assert digest_table(dataset.load()) == digest, (
            f"{name} changes its digest when it is saved and loaded"
        )
    assert {key: sealed[key] for key in facts} == facts
