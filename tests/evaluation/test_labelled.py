"""Labels that people gave to responses of pairs and to answers of models."""

import pandas as pd
import pytest
from labelled_texts import ANSWERS, WITH_RULES
from made_up_pairs import make_pairs

from realignment.evaluation.labelled import labelled_answers, labelled_exchanges
from realignment.records import DataError, Exchange

NO_ANSWERS = pd.DataFrame()


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


def test_an_answer_that_violates_for_want_of_content_is_no_over_refusal():
    answers = ANSWERS.assign(answers_question=[None, False, True, None])
    assert ANSWERS["complies"].tolist() == [True, False, False, True]
    assert labelled_answers(answers, WITH_RULES)[1] == [True, True, False, True]
