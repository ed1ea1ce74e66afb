"""The label oracle answers with the labels, and does not guess where there is none."""

from made_up_pairs import POLICY

from realignment.oracles.labels import LabelOracle
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
