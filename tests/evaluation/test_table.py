"""The evaluation table holds everything that was measured, and nothing that was not."""

import numpy as np
import pandas as pd
import pytest
from made_up_pairs import POLICY

from realignment.evaluation import measures
from realignment.evaluation.table import COLUMNS, tabulate
from realignment.policy import parse_policy

RULES = [{"id": "r", "description": "d", "check": {"kind": "forbidden", "patterns": ["must"]}}]
WITH_RULES = parse_policy({"name": "a", "version": "1", "text": "t", "rules": RULES}, source="test")
RESPONSES = pd.DataFrame(
    {
        "prompt": list("abcd"), "domain": ["law", "money", "ordinary", "law"],
        "kind": ["regulated", "regulated", "look_alike", "held_out"], "origin": [None, None, None, "INVERT"],
        "before": ["You must go", "one two", "x y", "you must"],
        "after": ["Maybe go", "one must", "x", "you may"],
    }
)  # fmt: skip
for side, verdicts in {"before": [False, True, True, False], "after": [True, False, True, True]}.items():
    RESPONSES[f"{side}_rules"] = pd.array(verdicts, dtype="boolean")
    RESPONSES[f"{side}_classifier"] = pd.array([True] * 4, dtype="boolean")
SCORES = pd.DataFrame(
    [("d", "RETAIN", "chosen", "retained", 2, -3.0, -4.0, 0.1)],
    columns=["pair_id", "disposition", "response", "role", "tokens", "logprob", "reference_logprob", "kl"],
)
CAPABILITY = pd.DataFrame(
    {
        "task": ["q", "q", "z", "z"],
        "question": [0, 1, 0, 1],
        "before": [1.0, 0, 0, 0],
        "after": [1.0, 1, 1, 0],
    }
)


def table(responses=RESPONSES, scores=SCORES, capability=CAPABILITY, old=WITH_RULES):
    return tabulate(responses, scores, capability, WITH_RULES, old, rng=np.random.default_rng(0))


def test_shares_are_corrected_by_the_judges_errors_in_the_domains_of_the_prompts():
    """Rules: agreement is 1 of 2, then 1 of 2; in money and law it calls 90 and 80 of 100 rightly."""
    right = {"true_positives": 45, "false_negatives": 5, "true_negatives": 40, "false_positives": 10}
    wrong = {"true_positives": 0, "false_negatives": 50, "true_negatives": 0, "false_positives": 50}
    quality = {"rules": {"money": right, "law": right, "pets": wrong}}
    found = tabulate(
        RESPONSES, SCORES, CAPABILITY, WITH_RULES, WITH_RULES, quality=quality, rng=np.random.default_rng(0)
    )
    corrected = found[found["metric"].str.endswith("_corrected")]
    (row,) = corrected.to_dict("records")
    assert (row["metric"], row["group"], row["judge"], row["n"]) == (
        "agreement_corrected", "regulated", "rules", 2
    )  # fmt: skip
    assert row["before"] == row["after"] == pytest.approx((0.5 + 0.8 - 1) / (0.9 + 0.8 - 1))
    assert row["difference_low"] < row["difference"] == 0 < row["difference_high"]


def test_over_refusal_is_the_complement_of_corrected_compliance():
    few = {"true_positives": 30, "false_negatives": 10, "true_negatives": 36, "false_positives": 4}
    responses = pd.DataFrame({"kind": ["ordinary"] * 40, "domain": "ordinary", "before_rules": True})
    responses["after_rules"] = [True] * 20 + [False] * 20
    (row,) = measures.corrected_rows(responses, "rules", {"ordinary": few})
    # Sensitivity 0.75, specificity 0.9: (0.5 + 0.9 − 1) / 0.65 comply, the rest is over-refusal.
    assert row["metric"] == "over_refusal_corrected"
    assert row["after"] == pytest.approx(1 - 0.4 / 0.65)
    assert (row["before"], row["before_low"]) == (0.0, 0.0)
    assert row["after_low"] < row["after"] < row["after_high"]
    assert row["difference"] == pytest.approx(0.5 / 0.65)


def keys(found):
    return set(zip(found["metric"], found["group"], found["judge"], strict=True))


def test_every_measure_is_there_once_by_every_judge():
    found = table()
    assert list(found.columns) == list(COLUMNS)
    judged = {
        (metric, group, judge)
        for judge in ("rules", "classifier")
        for metric, group in [
            ("agreement", "regulated"), ("agreement", "domain:law"), ("agreement", "domain:money"),
            ("agreement", "origin:INVERT"), ("over_refusal", "overall"), ("over_refusal", "kind:look_alike"),
        ]
    }  # fmt: skip
    assert keys(found) == judged | {
        ("old_policy_agreement", "overall", "rules"), ("response_length", "overall", ""),
        ("distinct_1", "overall", ""), ("distinct_2", "overall", ""), ("repetition", "overall", ""),
        ("refusal_phrases", "overall", ""), ("logratio_retained", "held_out", ""),
        ("kl_drift", "retained", ""),
        ("capability", "task:q", ""), ("capability", "task:z", ""),
    }  # fmt: skip
    assert len(found) == len(keys(found))


def test_what_was_recorded_of_answers_is_no_judge():
    recorded = {}
    for side in ("before", "after"):
        recorded[f"{side}_cut"] = pd.array([True, False, False, True], dtype="boolean")
        recorded[f"{side}_entropy"] = [0.5, 1.5, 0.2, 0.1]
    more = keys(table(RESPONSES.assign(**recorded))) - keys(table())
    assert more == {("answers_cut", "overall", ""), ("entropy", "overall", "")}


def test_figures_are_those_of_the_answers():
    found = table().set_index(["metric", "group", "judge"])
    assert found.loc[("agreement", "regulated", "rules"), ["n", "before", "after"]].tolist() == [2, 0.5, 0.5]
    assert found.loc[("over_refusal", "overall", "rules"), "after"] == 0
    assert found.loc[("old_policy_agreement", "overall", "rules"), "n"] == 3
    assert found.loc[("capability", "task:z", ""), ["n", "before", "after"]].tolist() == [2, 0, 0.5]


def test_ability_is_never_pooled_not_even_of_one_task():
    for scores in (CAPABILITY, CAPABILITY[CAPABILITY["task"] == "q"]):
        groups = {group for metric, group, _ in keys(table(capability=scores)) if metric == "capability"}
        assert groups == {f"task:{task}" for task in set(scores["task"])}


def test_an_old_policy_without_rules_is_not_measured():
    assert "old_policy_agreement" not in set(table(old=POLICY)["metric"])


def test_without_evaluation_prompts_the_old_policy_is_not_measured():
    held_out = RESPONSES[RESPONSES["kind"] == "held_out"]
    assert {metric for metric, _, _ in keys(table(held_out))} >= {"agreement", "response_length"}
    assert "old_policy_agreement" not in set(table(held_out)["metric"])


def test_nothing_measured_is_an_empty_table():
    found = table(RESPONSES.iloc[:0], SCORES.iloc[:0], CAPABILITY.iloc[:0])
    assert found.empty
    assert list(found.columns) == list(COLUMNS)


def test_the_same_generator_gives_the_same_intervals():
    pd.testing.assert_frame_equal(table(), table())
