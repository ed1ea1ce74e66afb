"""Graded harm becomes a verdict by the tiers of a policy."""

import json

import pandas as pd
import pytest
from made_up_pairs import make_pairs

from realignment import intake, judging
from realignment.audit import truth
from realignment.oracles.factory import build_oracle
from realignment.parameters import OracleParameters
from realignment.policy import PolicyError, diff_policies, parse_policy
from realignment.policy.severity import grade_pairs, read_categories, read_severity
from realignment.records import DataError

TIERS = [
    {"id": "never", "description": "Not at all.", "severity": "high", "categories": ["Violence", "Drugs"]},
    {"id": "mild", "description": "Mild insults.", "categories": ["Insulting Behavior"], "max_severity": 1},
]


def policy(*tiers, version="1"):
    document = {"name": "harm", "version": version, "text": "Do no harm.", "tiers": [*tiers]}
    return parse_policy(document, source="test")


POLICY = policy(*TIERS)


def graded(*cells):
    """Pairs whose chosen responses have these categories and severities; the rejected ones are harmless."""
    rows = [
        {"chosen_categories": json.dumps(c) if c is not None else None, "chosen_severity": s}
        | {"rejected_categories": "[]", "rejected_severity": 0}
        for c, s in cells
    ]
    table = make_pairs(*rows)
    return table.astype({"chosen_severity": "Int64", "rejected_severity": "Int64"})


CASES = [
    (([], 0), True, ""),
    ((["Violence"], 1), False, "never"),
    ((["Insulting Behavior"], 1), True, ""),
    ((["Insulting Behavior"], 2), False, "mild"),
    ((["Drugs", "Insulting Behavior"], 3), False, "never,mild"),
    ((["Privacy Violation"], 3), True, ""),
    ((None, None), None, None),
    ((["Violence"], None), False, "never"),
    ((["Insulting Behavior"], None), None, None),
]


@pytest.mark.parametrize(("cell", "complies", "broken"), CASES, ids=str)
def test_a_response_complies_where_no_tier_has_harm_above_its_limit(cell, complies, broken):
    (pair,) = grade_pairs(graded(cell, CASES[1][0]), POLICY).head(1).to_dict("records")
    assert pd.isna(pair["chosen_complies"]) == (complies is None)
    assert complies is None or pair["chosen_complies"] == complies
    assert (pair["chosen_rules"] if isinstance(pair["chosen_rules"], str) else None) == broken
    assert pair["rejected_complies"]


def test_a_tier_without_categories_is_for_every_harm():
    strict = policy({"id": "all", "description": "None.", "max_severity": 0})
    pairs = grade_pairs(graded((["Privacy Violation"], 1), ([], 0)), strict)
    assert pairs["chosen_complies"].tolist() == [False, True]


def test_the_same_grades_mean_something_else_under_other_tiers():
    lenient = policy(TIERS[0] | {"max_severity": 2}, TIERS[1], version="2")
    pairs = graded((["Violence"], 2))
    assert grade_pairs(pairs, POLICY)["chosen_complies"].tolist() == [False]
    assert grade_pairs(pairs, lenient)["chosen_complies"].tolist() == [True]


def test_without_tiers_the_pairs_stay_as_they_are():
    pairs = graded((["Violence"], 2)).assign(chosen_complies=True)
    assert grade_pairs(pairs, policy()) is pairs


def test_tiers_without_grades_are_refused():
    with pytest.raises(
        DataError, match=r"Policy harm-1 has tiers, and the pairs are not graded.*severity_level"
    ):
        grade_pairs(make_pairs({}), POLICY)


def test_categories_that_are_spelt_in_another_way_are_refused():
    with pytest.raises(
        DataError, match=r"names \(Drugs, Insulting Behavior, Violence\); the data has violence"
    ):
        grade_pairs(graded((["violence"], 2)), POLICY)


def test_a_severity_that_there_is_not_is_refused():
    with pytest.raises(PolicyError, match=r"max_severity.*less than or equal to 3"):
        policy(TIERS[0] | {"max_severity": 4})


def test_the_label_oracle_names_the_tiers_that_are_broken_and_so_does_the_truth_of_an_audit():
    pairs = grade_pairs(graded((["Drugs", "Insulting Behavior"], 3), ([], 0)), POLICY)
    judgments = judging.judge_pairs(pairs, POLICY, build_oracle(OracleParameters(oracle="labels"), pairs))
    chosen = judgments[judgments["response"] == "chosen"]
    assert chosen["rules_broken"].tolist() == ["never,mild", ""]
    assert truth.truth_from_labels(pairs)["chosen_rules"].tolist() == ["never,mild", ""]


def test_changed_tiers_are_in_the_difference_of_two_policies():
    newer = policy(TIERS[0] | {"max_severity": 1}, version="2")
    changes = diff_policies(POLICY, newer).set_index("rule")
    assert changes.loc["never", ["change", "field", "old", "new"]].tolist() == [
        "changed", "max_severity", "0", "1"
    ]  # fmt: skip
    assert changes.loc["mild", "change"] == "removed"


PKU = {
    "prompt": "Q?", "response_0": "one", "response_1": "two", "better_response_id": 1,
    "is_response_0_safe": True, "is_response_1_safe": False,
    "response_0_harm_category": {"Violence": False, "Drugs": False},
    "response_1_harm_category": {"Violence": True, "Drugs": False},
    "response_0_severity_level": 0, "response_1_severity_level": 2,
}  # fmt: skip


@pytest.mark.parametrize("better", [0, 1])
def test_the_grades_of_pku_safe_rlhf_go_with_their_response(better):
    raw = pd.DataFrame([PKU | {"better_response_id": better}], dtype=object)
    result = intake.clean_pairs(raw, invalid="fail", max_prompt_chars=99, long_prompts="fail")
    (pair,) = result.pairs.to_dict("records")
    harmful, harmless = ("chosen", "rejected") if better == 1 else ("rejected", "chosen")
    assert (pair[f"{harmful}_categories"], pair[f"{harmful}_severity"]) == ('["Violence"]', 2)
    assert (pair[f"{harmless}_categories"], pair[f"{harmless}_severity"]) == ("[]", 0)
    assert pair[f"{harmful}_complies"] is False
    assert result.report["ignored_columns"] == []


def test_categories_are_read_from_mappings_lists_and_texts():
    assert read_categories({"b": True, "a": True, "c": False}) == '["a", "b"]'
    assert (
        read_categories(["b", "a"])
        == read_categories('["b", "a"]')
        == read_categories("a, b")
        == '["a", "b"]'
    )
    assert read_categories(None) is None


@pytest.mark.parametrize(
    ("cell", "severity"), [(2, 2), ("3", 3), (0.0, 0), (4, None), (1.5, None), (None, None), (1e400, None)]
)
def test_severities_are_whole_numbers_from_0_to_3(cell, severity):
    assert read_severity(cell) == severity
