"""Who judges: the rules where there are any, and a classifier where there are labels enough."""

import pandas as pd
import pytest
from made_up_pairs import POLICY, make_pairs

from realignment.evaluation.judges import choose_judges, labelled_answers, labelled_exchanges
from realignment.policy import parse_policy
from realignment.records import DataError, Exchange
from realignment.statistics import wilson_interval

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


NO_ANSWERS = pd.DataFrame()


def answered(*rows, policy="a-1"):
    """Answers of models: of each, the words, the topic, and whether a person says that they comply."""
    return pd.DataFrame(
        [
            {"answer_id": f"m{i}", "prompt": f"Question {i}?", "response": text, "domain": domain}
            | {"complies": complies, "policy": policy}
            for i, (text, domain, complies) in enumerate(rows)
        ]
    )


ANSWERS = answered(
    ("You could sell everything, or not.", "money", True),  # the rule is wrong here
    ("Step one, step one, step one.", "money", False),  # and blind here
    ("You must sell today.", "money", False),
    ("In general terms, an adviser can say more.", "money", True),
)


def test_a_policy_without_rules_has_no_judge_and_says_so():
    judges, report = choose_judges(labelled(12), ANSWERS, POLICY, folds=3, seed=0)
    assert judges == []
    assert report["judges"] == []
    assert "no machine-checkable rules" in report["note"]


def test_labels_add_a_classifier_with_its_measured_accuracy():
    judges, report = choose_judges(labelled(12), NO_ANSWERS, WITH_RULES, folds=3, seed=0)
    assert [judge.name for judge in judges] == report["judges"] == ["rules", "classifier"]
    classifier = report["classifier"]
    measured = classifier["cross_validated"]
    assert (measured["n"], classifier["folds"]) == (24, 3)
    right = round(measured["accuracy"] * 24)
    assert right >= 22
    assert measured["interval"] == list(wilson_interval(right, 24))
    assert classifier["on_written_responses"] == measured
    assert classifier["on_model_answers"] is report["rules"]["on_model_answers"] is None
    verdicts = judges[1]([Exchange("?", "You must sell wines today", "money")], WITH_RULES)
    assert verdicts[0].complies is False


@pytest.mark.parametrize("pairs", [labelled(2), make_pairs({}, {})], ids=["too few labels", "no labels"])
def test_without_labels_enough_the_rules_judge_alone_and_the_report_says_why(pairs):
    judges, report = choose_judges(pairs, NO_ANSWERS, WITH_RULES, folds=3, seed=0)
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


def test_both_judges_are_measured_on_labelled_answers_of_models():
    _, report = choose_judges(labelled(12), ANSWERS, WITH_RULES, folds=3, seed=0)
    classifier = report["classifier"]
    parts = [classifier[name] for name in ("cross_validated", "on_written_responses", "on_model_answers")]
    assert [part["n"] for part in parts] == [28, 24, 4]
    whole, *apart = (round(part["accuracy"] * part["n"]) for part in parts)
    assert whole == sum(apart)
    rules = {"n": 4, "accuracy": 0.5, "interval": list(wilson_interval(2, 4))}
    assert report["rules"]["on_model_answers"] == rules


def test_the_classifier_learns_from_answers_of_models_what_no_pair_shows():
    loops = ("Step one, step one, step one.", "Thanks, thanks, thanks.")
    many = [(f"{loop} {word}", "money", False) for loop in loops for word in WORDS]
    loop = [Exchange("?", "Thanks, thanks, thanks, an adviser.", "money")]
    said = {
        name: choose_judges(labelled(12), answers, WITH_RULES, folds=3, seed=0)[0][1](loop, WITH_RULES)[
            0
        ].complies
        for name, answers in (("without", NO_ANSWERS), ("with", answered(*many)))
    }
    assert said == {"without": True, "with": False}


def test_labels_under_another_policy_or_version_are_not_used():
    _, known = labelled_answers(ANSWERS, WITH_RULES)
    assert known == [True, False, False, True]
    for policy in ("a-2", "b-1", "a"):
        assert labelled_answers(ANSWERS.assign(policy=policy), WITH_RULES) == ([], [])
    assert labelled_answers(NO_ANSWERS, WITH_RULES) == ([], [])


def test_answers_of_models_are_judged_with_their_prompt_and_topic():
    exchanges, _ = labelled_answers(ANSWERS, WITH_RULES)
    assert exchanges[0] == Exchange("Question 0?", "You could sell everything, or not.", "money")


def test_corrections_alone_are_no_labels():
    assert labelled_exchanges(make_pairs({"correction": "better"})) == ([], [])


def test_labelled_answers_without_a_column_are_refused_by_its_name():
    with pytest.raises(DataError, match=r"lack columns complies, policy.*labelled_answers: none"):
        labelled_answers(ANSWERS.drop(columns=["complies", "policy"]), WITH_RULES)


def test_the_errors_of_each_judge_are_counted_by_domain():
    others = answered(("You must sell the ball.", "sport", True), ("In general terms.", None, False))
    answers = pd.concat([ANSWERS, others], ignore_index=True)
    _, report = choose_judges(labelled(12), answers, WITH_RULES, folds=3, seed=0)
    rules = report["quality"]["rules"]
    assert rules["money"] == {
        "true_positives": 1, "false_negatives": 1, "true_negatives": 1, "false_positives": 1
    }  # fmt: skip
    assert rules["sport"]["false_negatives"] == rules[""]["false_positives"] == 1
    for quality in report["quality"].values():
        assert {domain: sum(counts.values()) for domain, counts in quality.items()} == {
            "money": 4, "sport": 1, "": 1
        }  # fmt: skip
    classifier = report["quality"]["classifier"]
    right = sum(counts["true_positives"] + counts["true_negatives"] for counts in classifier.values())
    assert right == round(6 * report["classifier"]["on_model_answers"]["accuracy"])
