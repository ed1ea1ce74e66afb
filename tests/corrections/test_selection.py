"""Verified by somebody else, the best is taken, its origin is kept, and a pair without one is suppressed."""

import pandas as pd
import pytest
from made_up_pairs import POLICY, ScriptedOracle, make_pairs

from realignment.corrections import (
    apply_corrections,
    choose_corrections,
    report_corrections,
    verify_candidates,
)
from realignment.corrections.candidates import PEOPLE, tabulate_candidates
from realignment.corrections.selection import AUTHOR, NOT_VERIFIED, PROVENANCE
from realignment.objective.examples import TRACE, classify_pair
from realignment.objective.hybrid import Treatment
from realignment.oracles.cascade import CascadeOracle
from realignment.oracles.human import HumanOracle
from realignment.oracles.labels import LabelOracle
from realignment.records import digest_table

PUNISH = make_pairs({}, {}, {}, {}, disposition="PUNISH")


def assessed(*rows):
    """(pair, writer, response, flaws, topic) → candidates as `assess_quality` returns them."""
    numbers: dict = {}
    lines, measures = [], []
    for pair, writer, response, flaws, topic in rows:
        number = numbers[pair, writer] = numbers.get((pair, writer), -1) + 1
        lines.append((f"p{pair}", number, writer, f"{writer}-1", POLICY.digest, "i", response, True))
        measures.append(
            {"words": float(len(response.split())), "topic": topic, "copied": 0.0, "flaws": flaws}
        )
    columns = pd.DataFrame(measures, columns=["words", "topic", "copied", "flaws"])
    return (
        pd.concat([tabulate_candidates(lines), columns], axis=1).astype({"flaws": "str"}).assign(distinct=1.0)
    )


def run(rows, script, *, min_confidence=0.5):
    oracle = ScriptedOracle(script)
    verified = verify_candidates(assessed(*rows), PUNISH, POLICY, oracle, authors_vouch=True)
    return choose_corrections(verified, min_confidence=min_confidence), oracle


def selected(chosen):
    rows = chosen[chosen["selected"]]
    return dict(zip(rows["pair_id"], rows["response"], strict=True))


def test_of_a_machine_only_what_passes_the_gate_is_asked_about():
    rows = [
        (0, "model", "good", "", 1.0),
        (1, "model", "loop", "repeats itself", 1.0),
        (2, PEOPLE, "mine", "off topic", 0.1),
    ]
    chosen, oracle = run(rows, {"good": True, "mine": True, "loop": True})
    assert [exchange.response for exchange in oracle.asked] == ["good", "mine"]
    assert [exchange.prompt for exchange in oracle.asked] == ["Prompt 0?", "Prompt 2?"]
    assert chosen["reason"].tolist() == ["as scripted", NOT_VERIFIED, "as scripted"]
    assert selected(chosen) == {"p0": "good", "p2": "mine"}


def test_what_the_verifier_does_not_approve_is_never_selected():
    rows = [(0, "model", "bad", "", 1.0), (1, PEOPLE, "unknown", "", 1.0), (2, "model", "unsure", "", 1.0)]
    chosen, _ = run(rows, {"bad": False, "unsure": (True, 0.4)})
    assert selected(chosen) == {}
    assert chosen["passes"].tolist() == [False, False, False]


def test_people_come_first_then_confidence_then_topic_then_order():
    rows = [
        (0, "model", "sure", "", 1.0), (0, PEOPLE, "mine", "", 0.2),
        (1, "model", "less", "", 1.0), (1, "model", "more", "", 0.9),
        (2, "model", "far", "", 0.8), (2, "model", "near", "", 0.9),
        (3, "model", "first", "", 0.9), (3, "model", "second", "", 0.9),
    ]  # fmt: skip
    script = dict.fromkeys(("far", "near", "first", "second", "mine"), (True, 0.7))
    chosen, _ = run(rows, script | {"sure": (True, 1.0), "less": (True, 0.6), "more": (True, 0.9)})
    assert selected(chosen) == {"p0": "mine", "p1": "more", "p2": "near", "p3": "first"}
    best = chosen[chosen["best"]]
    assert best.groupby("pair_id")["writer"].agg(list).to_dict()["p0"] == ["model", PEOPLE]


def test_the_order_of_the_candidates_does_not_matter_but_for_ties():
    rows = [(0, "model", "a", "", 0.9), (0, "model", "b", "", 0.95), (0, "chat", "c", "", 0.97)]
    script = dict.fromkeys("abc", True)
    assert selected(run(rows, script)[0]) == selected(run(rows[::-1], script)[0]) == {"p0": "c"}


@pytest.fixture
def corrected():
    rows = [(0, "model", "good", "", 0.9), (1, "model", "bad", "", 0.9), (2, PEOPLE, "mine", "", 0.9)]
    chosen, _ = run(rows, {"good": (True, 0.8), "bad": False, "mine": True})
    return apply_corrections(PUNISH, chosen), report_corrections(PUNISH, chosen)


def test_pairs_keep_their_place_and_get_the_correction_with_its_origin(corrected):
    table, _ = corrected
    assert table["pair_id"].tolist() == PUNISH["pair_id"].tolist()
    assert table["correction"].fillna("none").tolist() == ["good", "none", "mine", "none"]
    first = table.iloc[0]
    assert {name: first[name] for name in PROVENANCE} == {
        "correction_writer": "model", "correction_model": "model-1", "correction_candidate": 0,
        "correction_verifier": "scripted", "correction_policy": POLICY.digest,
        "correction_confidence": 0.8, "correction_topic": 0.9, "correction_copied": 0.0,
    }  # fmt: skip
    assert table.loc[1, list(PROVENANCE)].isna().all()


def test_a_pair_without_a_correction_is_suppressed_row_by_row(corrected):
    table, _ = corrected
    plans = [TRACE[classify_pair(row)] for row in table.to_dict("records")]
    assert [plan.treatment for plan in plans] == [
        Treatment.CORRECT,
        Treatment.SUPPRESS,
        Treatment.CORRECT,
        Treatment.SUPPRESS,
    ]


@pytest.mark.parametrize("rows", [[], [(0, "model", "good", "", 0.9)]])
def test_corrected_pairs_have_the_same_digest_after_parquet(rows, tmp_path):
    chosen, _ = run(rows, {"good": True})
    table = apply_corrections(PUNISH, chosen)
    table.to_parquet(tmp_path / "t.parquet")
    assert digest_table(pd.read_parquet(tmp_path / "t.parquet")) == digest_table(table)
    chosen.to_parquet(tmp_path / "c.parquet")
    assert digest_table(pd.read_parquet(tmp_path / "c.parquet")) == digest_table(chosen)


def test_the_report_counts_every_candidate_once(corrected):
    _, report = corrected
    assert (report["pairs"], report["corrected"], report["suppressed"]) == (4, 2, 2)
    assert report["corrected_by"] == {"model": 1, PEOPLE: 1}
    model = report["writers"]["model"]
    assert model["candidates"] == 2 == model["complies"] + model["violates"] + model["unscored"]
    assert model["rules_broken"] == {"rule-a": 1, "rule-b": 1}
    assert model["passing"]["share"] == 0.5


def test_flaws_are_counted_each():
    chosen, _ = run([(0, "model", "x", "cut off,off topic", 0.1), (0, "model", "y", "cut off", 0.9)], {})
    report = report_corrections(PUNISH, chosen)["writers"]["model"]
    assert report["flaws"] == {"cut off": 2, "off topic": 1}
    assert (report["judged"], report["passing"]["n"]) == (0, 0)


def said_by_people(*rows):
    columns = ["prompt", "response", "complies"]
    table = pd.DataFrame(rows, columns=columns).assign(policy=POLICY.full_name, rules_broken="")
    return HumanOracle.from_table(table.assign(annotator=[str(n) for n in range(len(rows))]))


HUMAN = said_by_people(
    ("Prompt 0?", "refuted", False), ("Prompt 1?", "tied", True), ("Prompt 1?", "tied", False)
)
LABELS = LabelOracle({("Prompt 0?", "chosen 0"): False})
LOOKUPS = {"human": HUMAN, "labels": LABELS, "cascade": CascadeOracle((LABELS, HUMAN), 0.9)}


@pytest.mark.parametrize("name", LOOKUPS)
def test_what_people_wrote_and_nobody_else_could_judge_is_verified_by_its_author(name):
    rows = [(2, PEOPLE, "by Ann", "", 1.0), (3, "model", "by a machine", "", 1.0)]
    chosen = choose_corrections(
        verify_candidates(assessed(*rows), PUNISH, POLICY, LOOKUPS[name], authors_vouch=True),
        min_confidence=0.5,
    )
    assert selected(chosen) == {"p2": "by Ann"}
    assert chosen["verifier"].tolist() == [AUTHOR, name]
    assert apply_corrections(PUNISH, chosen).loc[2, "correction_verifier"] == AUTHOR
    report = report_corrections(PUNISH, chosen)
    assert report["verified_by"] == {AUTHOR: 1}
    assert report["verifier"] == f"{AUTHOR} and {name}"


def test_what_other_people_said_of_a_correction_counts_and_not_its_author():
    rows = [(0, PEOPLE, "refuted", "", 1.0), (1, PEOPLE, "tied", "", 1.0)]
    chosen = choose_corrections(
        verify_candidates(assessed(*rows), PUNISH, POLICY, HUMAN, authors_vouch=True), min_confidence=0.5
    )
    assert selected(chosen) == {}
    assert chosen["verifier"].tolist() == ["human", "human"]


def test_where_a_verifier_is_named_no_author_stands_in_and_what_is_dropped_is_said(caplog):
    rows = [(2, PEOPLE, "by Ann", "", 1.0)]
    chosen = choose_corrections(
        verify_candidates(assessed(*rows), PUNISH, POLICY, HUMAN, authors_vouch=False), min_confidence=0.5
    )
    assert selected(chosen) == {}
    assert "1 of 1 corrections that people wrote are not used" in caplog.text
    assert "no person has judged this response" in caplog.text
