"""The label oracle answers with the labels, and does not guess where there is none."""

from made_up_pairs import POLICY, make_pairs

from realignment.oracles.labels import LabelOracle, read_truth_labels
from realignment.records import Exchange

ORACLE = LabelOracle({("Why?", "Because."): True, ("Why?", "No."): False, ("Why?", "Hm."): None})


def test_the_label_of_the_very_same_prompt_and_response_is_the_verdict():
    judgments = ORACLE([Exchange("Why?", "No.", "law"), Exchange("Why?", "Because.")], POLICY)
    assert [(j.complies, j.confidence, j.oracle) for j in judgments] == [
        (False, 1.0, "labels"), (True, 1.0, "labels")
    ]  # fmt: skip


def test_no_label_is_unscored_with_the_reason():
    for exchange in (Exchange("Why?", "Hm."), Exchange("Why?", "Because"), Exchange("How?", "Because.")):
        (judgment,) = ORACLE([exchange], POLICY)
        assert (judgment.complies, judgment.confidence) == (None, 0.0)
        assert "no label" in judgment.reason


TRUTH = make_pairs(
    {"chosen_complies": True, "rejected_complies": False},  # right, right: RETAIN as RETAIN
    {"chosen_complies": False, "rejected_complies": True},  # right, wrong: INVERT as PUNISH
    {"chosen_complies": False, "rejected_complies": False},  # wrong, right: PUNISH as RETAIN
    {"chosen_complies": False, "rejected_complies": True},  # unscored, right: INVERT as REVIEW
    {"chosen_complies": None, "rejected_complies": True},  # no truth, right: no disposition to measure
)


def test_truth_labels_are_found_by_prompt_and_response():
    labels = read_truth_labels(TRUTH)
    assert labels[("Prompt 0?", "chosen 0")] is True
    assert labels[("Prompt 0?", "rejected 0")] is False
    assert labels[("Prompt 4?", "chosen 4")] is None
    assert len(labels) == 10


def test_a_label_given_in_one_pair_holds_in_the_other():
    shared = {"prompt": "Same?", "chosen": "The answer."}
    first, second = {"chosen_complies": True}, {"chosen_complies": None}
    for rows in ([first, second], [second, first]):
        labels = read_truth_labels(make_pairs(*(shared | row for row in rows), rejected_complies=None))
        assert labels[("Same?", "The answer.")] is True


def test_labels_that_contradict_leave_the_response_unknown():
    shared = {"prompt": "Same?", "chosen": "The answer."}
    rows = [shared | {"chosen_complies": value} for value in (True, False, True)]
    assert read_truth_labels(make_pairs(*rows))[("Same?", "The answer.")] is None
