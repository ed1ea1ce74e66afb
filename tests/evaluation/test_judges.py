"""Who judges: the rules where there are any, and a classifier where there are labels enough."""

import pytest
from made_up_pairs import POLICY, make_pairs

from realignment.evaluation.judges import appoint, labelled_exchanges
from realignment.evaluation.statistics import wilson_interval
from realignment.policy import parse_policy
from realignment.records import Exchange

RULES = [{"id": "r", "description": "d", "check": {"kind": "forbidden", "patterns": ["sell"]}}]
WITH_RULES = parse_policy({"name": "a", "version": "1", "text": "t", "rules": RULES}, source="test")
WORDS = [
    "shares",
    "bonds",
    "gold",
    "funds",
    "loans",
    "rents",
    "notes",
    "coins",
    "homes",
    "farms",
    "ships",
    "wines",
]


def labelled(n):
    return make_pairs(
        *(
            {
                "chosen": f"You must sell {word} today, no doubt about it",
                "rejected": f"In general terms, {word} may rise or fall, and an adviser can say more",
                "chosen_complies": False,
                "rejected_complies": True,
                "domain": "money",
            }
            for word in WORDS[:n]
        )
    )


def test_a_policy_without_rules_has_no_judge_and_says_so():
    judges, report = appoint(labelled(12), POLICY, folds=3, seed=0)
    assert judges == []
    assert report["judges"] == []
    assert "no machine-checkable rules" in report["note"]


def test_labels_add_a_classifier_with_its_measured_accuracy():
    judges, report = appoint(labelled(12), WITH_RULES, folds=3, seed=0)
    assert [judge.name for judge in judges] == report["judges"] == ["rules", "classifier"]
    classifier = report["classifier"]
    assert (classifier["n"], classifier["folds"]) == (24, 3)
    right = round(classifier["cross_validated_accuracy"] * 24)
    assert right >= 22
    assert classifier["interval"] == list(wilson_interval(right, 24))
    verdicts = judges[1]([Exchange("?", "You must sell wines today", "money")], WITH_RULES)
    assert verdicts[0].complies is False


@pytest.mark.parametrize("pairs", [labelled(2), make_pairs({}, {})], ids=["too few labels", "no labels"])
def test_without_labels_enough_the_rules_judge_alone_and_the_report_says_why(pairs):
    judges, report = appoint(pairs, WITH_RULES, folds=3, seed=0)
    assert [judge.name for judge in judges] == report["judges"] == ["rules"]
    assert "No second judge: The classifier needs" in report["note"]


def test_labelled_exchanges_are_those_with_a_label_and_corrections_comply():
    pairs = make_pairs(
        {"chosen_complies": False, "rejected_complies": None, "correction": "better", "domain": "law"},
        {"chosen_complies": None, "rejected_complies": True},
    )
    exchanges, labels = labelled_exchanges(pairs)
    assert exchanges == [
        Exchange("Prompt 0?", "chosen 0", "law"),
        Exchange("Prompt 1?", "rejected 1", None),
        Exchange("Prompt 0?", "better", "law"),
    ]
    assert labels == [False, True, True]


def test_corrections_alone_are_no_labels():
    assert labelled_exchanges(make_pairs({"correction": "better"})) == ([], [])
