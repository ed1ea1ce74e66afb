"""Principles as a policy: loads, carries its evidence, and checks only what the choices keep."""

import pandas as pd
import pytest

from realignment.infer_policy import PRINCIPLE_COLUMNS, read_document, write_document
from realignment.infer_policy.document import derive_check
from realignment.oracles.rules import RulesOracle
from realignment.policy import diff_policies, read_policy
from realignment.records import Exchange
from realignment.reports import draw_principles as draw

PAIRS = pd.DataFrame(
    {
        "chosen": ["one two three", "one two three four", "one", "Wow! one two", "one two"],
        "rejected": ["one! two " * 20, "It is! " * 9, "perhaps!", "one two three four five!", "x! " * 30],
    }
)


def principles(*ids):
    row = dict.fromkeys(PRINCIPLE_COLUMNS, 0.5) | {
        "principle": "The response is so.",
        "pairs": 5,
        "applies": 4,
    }
    row |= {"support": 0.8, "agreement": 0.81234567, "low": 0.76, "high": 0.9}
    return pd.DataFrame([row | {"id": name} for name in ids], columns=list(PRINCIPLE_COLUMNS))


def document(*ids, min_kept=0.8):
    return write_document(principles(*ids), PAIRS, min_kept=min_kept, version="abc")


def test_the_document_is_a_policy_that_a_file_of_it_loads_as(tmp_path):
    text = document("exclamation-less", "hedging-less")
    (tmp_path / "inferred.yml").write_text(text, encoding="utf-8")
    policy = read_policy(tmp_path / "inferred.yml")
    assert policy == read_document(text)
    assert (policy.name, policy.version) == ("inferred", "abc")
    assert [rule.id for rule in policy.rules] == ["exclamation-less", "hedging-less"]
    assert "The response is so." in policy.text
    assert "text: |" in text


def test_every_rule_has_its_evidence():
    evidence = read_document(document("exclamation-less")).rules[0].evidence
    assert (evidence.pairs, evidence.support, evidence.agreement, evidence.interval) == (
        5,
        0.8,
        0.8123,
        (0.76, 0.9),
    )


def test_a_check_is_given_where_the_chosen_responses_keep_it():
    assert derive_check("exclamation-less", PAIRS, min_kept=0.8) == {"kind": "forbidden", "patterns": ["!"]}
    assert derive_check("exclamation-less", PAIRS, min_kept=0.9) is None
    assert derive_check("exclamation-more", PAIRS, min_kept=0.1) is None  # the rejected keep it more often


def test_a_limit_of_length_leaves_a_tenth_of_the_chosen_out():
    words = [str(n) + " w" * (n - 1) for n in range(1, 101)]
    pairs = pd.DataFrame({"chosen": words, "rejected": ["w " * 200] * 100})
    check = derive_check("length-less", pairs, min_kept=0.8)
    assert check == {"kind": "length", "max_words": 91}
    pairs["rejected"] = "w"
    assert derive_check("length-more", pairs, min_kept=0.8) == {"kind": "length", "min_words": 10}


def test_a_word_is_a_pattern_and_what_no_pattern_says_is_judged():
    pairs = pd.DataFrame({"chosen": ["gold it is"] * 9, "rejected": ["none"] * 9})
    assert derive_check("word-gold-more", pairs, min_kept=0.8)["patterns"] == [r"\bgold\b"]
    assert derive_check("helps-the-reader", pairs, min_kept=0.0) is None
    policy = read_document(document("helps-the-reader"))
    assert policy.rules[0].check.kind == "judged"


def test_a_judged_rule_of_an_inferred_policy_is_never_a_guess():
    policy = read_document(document("exclamation-less", "helps-the-reader"))
    loud, quiet = RulesOracle()([Exchange("Why?", "So!"), Exchange("Why?", "So.")], policy)
    assert (loud.complies, quiet.complies) == (False, None)


def test_it_feeds_the_difference_of_policies():
    one, other = read_document(document("exclamation-less")), read_document(document("hedging-less"))
    assert diff_policies(one, other)["change"].tolist() == ["removed", "added"]


def test_nothing_found_is_a_policy_without_rules():
    assert read_document(document()).rules == ()


@pytest.mark.parametrize(
    "feature", ["list", "heading", "bold", "code", "link", "emoji", "number", "first-person"]
)
def test_every_derived_pattern_is_one_that_a_policy_takes(feature):
    pairs = pd.DataFrame(
        {"chosen": ["- a\n# b\n**c** `d` https://e.f \N{HOT BEVERAGE} 4 I"], "rejected": ["none"]}
    )
    check = derive_check(f"{feature}-more", pairs, min_kept=1.0)
    assert check is not None
    assert check["kind"] == "required"


def test_the_figure_has_a_dot_for_each_principle_or_says_that_there_is_none():
    table = principles("exclamation-less", "hedging-less")
    (dots,) = draw(table).data
    assert list(dots.x) == list(table["agreement"])
    assert dots.error_x.array[0] == pytest.approx(0.9 - 0.81234567)
    assert "No principle" in draw(table.iloc[:0]).layout.annotations[0].text
