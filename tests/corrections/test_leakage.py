"""Planted leakage is found with its sign, none is reported where the writer writes as people do."""

import numpy as np
import pandas as pd
import pytest

from realignment.corrections import measure_leakage
from realignment.corrections.candidates import PEOPLE
from realignment.corrections.leakage import LEAKAGE_COLUMNS, _auc_interval
from realignment.reports import draw_correction_leakage

WORDS = ["gold", "income", "price", "year", "bank", "rate", "fund", "share", "cost", "tax", "loan", "debt"]


def chosen(rng, writer, pairs, *, words=(20, 30), ending="", complies=1.0, rule="says-general"):
    """Best candidates as `choose_corrections` marks them, with texts of random words."""
    rows = []
    for pair in pairs:
        text = " ".join(rng.choice(WORDS, rng.integers(*words))) + "."
        kept = bool(rng.random() < complies)
        text = f"{text} {ending}" if rng.random() < 0.8 else text
        rows.append((f"p{pair}", writer, text.strip(), kept, "" if kept else rule))
    table = pd.DataFrame(rows, columns=["pair_id", "writer", "response", "complies", "rules_broken"])
    measured = {"words": table["response"].str.split().str.len().astype(float), "reason": "asked"}
    table["complies"] = table["complies"].astype("boolean")
    return table.assign(**measured, best=table["complies"].astype(bool))


def leakage(people, machine):
    table = measure_leakage(pd.concat([people, machine], ignore_index=True), seed=0)
    assert list(table.columns) == list(LEAKAGE_COLUMNS)
    return table.set_index(["group", "metric"])


def test_a_machine_that_adds_words_courtesies_and_breaks_a_rule_is_found_out():
    rng = np.random.default_rng(0)
    people = chosen(rng, PEOPLE, range(40))
    machine = chosen(
        rng, "model", range(40), words=(50, 60), ending="Hope this helps! Thank you.", complies=0.6
    )
    table = leakage(people, machine)
    for key in (
        ("length", "words"),
        ("style", "politeness"),
        ("style", "exclamation"),
        ("rule broken", "says-general"),
    ):
        assert table.loc[key, "low"] > 0, key
    assert table.loc[("agreement", "complies"), "high"] < 0
    assert table.loc[("told apart", "AUC"), "value"] > 0.85


def test_a_machine_that_writes_as_people_do_leaks_nothing():
    rng = np.random.default_rng(1)
    table = leakage(chosen(rng, PEOPLE, range(60)), chosen(rng, "model", range(60)))
    length, told = table.loc[("length", "words")], table.loc[("told apart", "AUC")]
    assert length["low"] < 0 < length["high"]
    assert told["low"] < 0 < told["high"]


def test_from_ten_shared_pairs_on_the_same_prompts_are_compared():
    rng = np.random.default_rng(2)
    people, machine = chosen(rng, PEOPLE, range(30)), chosen(rng, "model", range(20, 50))
    paired = leakage(people, machine).loc[("length", "words")]
    assert (paired["paired"], paired["n_people"], paired["n_writer"]) == (True, 10, 10)
    ours = people.set_index("pair_id").loc[[f"p{i}" for i in range(20, 30)], "words"].mean()
    assert paired["people"] == ours
    unpaired = leakage(people, chosen(rng, "model", range(21, 50))).loc[("length", "words")]
    assert (unpaired["paired"], unpaired["n_people"], unpaired["n_writer"]) == (False, 30, 29)


def test_a_pair_counts_once_however_many_candidates_it_has():
    rng = np.random.default_rng(3)
    people, machine = chosen(rng, PEOPLE, range(30)), chosen(rng, "model", range(30))
    machine.loc[0, "complies"] = False
    many = pd.concat([machine, *[machine.iloc[[0]].assign(best=False)] * 9], ignore_index=True)
    assert leakage(people, many).loc[("agreement", "complies"), "value"] == pytest.approx(29 / 30)


@pytest.mark.parametrize("writers", [(PEOPLE,), ("model",), ()])
def test_without_both_there_is_nothing_to_compare(writers):
    rng = np.random.default_rng(4)
    parts = [chosen(rng, writer, range(12)) for writer in writers]
    table = pd.concat(parts) if parts else chosen(rng, PEOPLE, range(1)).iloc[:0]
    assert measure_leakage(table, seed=0).empty


def test_the_interval_of_an_area_matches_hanley_and_mcneil():
    """AUC 0.9 with 50 and 50: standard error 0.0320 by their formula."""
    low, high = _auc_interval(0.9, 50, 50)
    assert (low, high) == pytest.approx((0.9 - 1.96 * 0.03204, 0.9 + 1.96 * 0.03204), abs=5e-4)


def test_the_figure_shows_every_difference_that_has_an_interval_and_says_when_there_is_none():
    rng = np.random.default_rng(5)
    people = chosen(rng, PEOPLE, range(30), ending="Perhaps.")
    machine = chosen(rng, "model", range(30), words=(40, 50), complies=0.7)
    table = measure_leakage(pd.concat([people, machine], ignore_index=True), seed=0)
    policy, manner = draw_correction_leakage(table).data
    shares = table[table["unit"] == "share"]
    assert list(policy.x) == list(shares["difference"])
    assert list(policy.error_x.array) == pytest.approx(list(shares["high"] - shares["difference"]))
    assert "length: words" in manner.y
    empty = draw_correction_leakage(table.iloc[:0])
    assert "No pairs have corrections" in empty.layout.annotations[0].text
