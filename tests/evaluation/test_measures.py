"""Rows of the evaluation table against figures counted by hand."""

import numpy as np
import pandas as pd
import pytest
from made_up_pairs import POLICY, ScriptedOracle

from realignment.evaluation import measures
from realignment.policy import parse_policy
from realignment.records import Exchange
from realignment.statistics import compare_clustered, compare_proportions

COLUMNS = ["kind", "domain", "origin", "before_j", "after_j"]
ROWS = [
    ("regulated", "money", None, False, True),
    ("regulated", "money", None, False, True),
    ("regulated", "law", None, True, False),
    ("regulated", "law", None, None, True),  # unscored before: in no figure
    ("ordinary", "ordinary", None, True, True),
    ("ordinary", "ordinary", None, True, False),
    ("look_alike", "ordinary", None, False, False),
    ("held_out", "money", "INVERT", False, True),
    ("held_out", "law", "INVERT", False, False),
    ("held_out", "ordinary", "RETAIN", True, True),
]


def judged(rows=ROWS):
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.astype({"before_j": "boolean", "after_j": "boolean"})


def found(rows):
    return {(r["metric"], r["group"]): (r["n"], r["before"], r["after"]) for r in rows}


def test_agreement_and_over_refusal_by_group():
    third = pytest.approx(1 / 3)
    assert found(measures.compliance_rows(judged(), "j")) == {
        ("agreement", "regulated"): (3, third, pytest.approx(2 / 3)),
        ("agreement", "domain:money"): (2, 0, 1),
        ("agreement", "domain:law"): (1, 1, 0),
        ("agreement", "origin:INVERT"): (2, 0, 0.5),
        ("agreement", "origin:RETAIN"): (1, 1, 1),
        ("over_refusal", "overall"): (3, third, pytest.approx(2 / 3)),
        ("over_refusal", "kind:ordinary"): (2, 0, 0.5),
        ("over_refusal", "kind:look_alike"): (1, 1, 1),
    }


def test_over_refusal_is_the_share_of_outside_answers_that_do_not_comply():
    outside = judged([r for r in ROWS if r[0] in ("ordinary", "look_alike")])
    refused = ~outside["after_j"].to_numpy(bool)
    rows = {r["group"]: r for r in measures.compliance_rows(outside, "j")}
    assert rows["overall"]["after"] == refused.mean()
    assert set(rows) == {"overall", "kind:ordinary", "kind:look_alike"}


def test_a_row_carries_the_paired_comparison():
    rows = {r["group"]: r for r in measures.compliance_rows(judged(), "j") if r["metric"] == "agreement"}
    expected = compare_proportions([False, False, True], [True, True, False])
    assert rows["regulated"] == measures.metric_row(
        "agreement", "regulated", expected, unit="share", judge="j"
    )
    assert rows["regulated"]["difference_low"] == expected.difference_low


def test_a_group_without_scored_answers_has_no_row():
    nothing = judged([("regulated", "law", None, None, None), ("ordinary", "ordinary", None, True, None)])
    assert list(measures.compliance_rows(nothing, "j")) == []
    assert list(measures.compliance_rows(judged([]), "j")) == []


ANSWERS = pd.DataFrame(
    {
        "prompt": ["a", "b"], "domain": ["law", None], "kind": ["regulated", "ordinary"],
        "before": ["one", "two"], "after": ["three", ""],
    }
)  # fmt: skip


def test_both_sides_are_judged_by_every_judge():
    first = ScriptedOracle({"one": True, "two": False, "three": True}, name="first")
    second = ScriptedOracle({"one": False}, name="second")
    table = measures.judge_responses(ANSWERS, [first, second], POLICY)
    assert table["before_first"].tolist() == [True, False]
    assert table["after_first"].tolist() == [True, pd.NA]
    assert table["before_second"].tolist() == [False, pd.NA]
    assert table["after_second"].isna().all()
    assert first.asked == [
        Exchange("a", "one", "law"), Exchange("b", "two"), Exchange("a", "three", "law"), Exchange("b", "")
    ]  # fmt: skip
    assert "before_first" not in ANSWERS


def test_no_judge_adds_no_column():
    pd.testing.assert_frame_equal(measures.judge_responses(ANSWERS, [], POLICY), ANSWERS)


def test_agreement_with_the_old_policy_is_over_the_evaluation_prompts():
    rules = [{"id": "r", "description": "d", "check": {"kind": "forbidden", "patterns": ["two"]}}]
    old = parse_policy({"name": "old", "version": "1", "text": "t", "rules": rules}, source="test")
    from realignment.oracles.rules import RulesOracle

    more = pd.concat([ANSWERS, ANSWERS.assign(kind="held_out")], ignore_index=True)
    row = measures.old_policy_row(more, RulesOracle(), old)
    assert (row["metric"], row["judge"], row["n"]) == ("old_policy_agreement", "rules", 2)
    assert (row["before"], row["after"]) == (0.5, 1.0)


def sampled(n):
    """Every row of `ROWS` with both verdicts n times, as samples of one prompt."""
    table = judged([row for row in ROWS if None not in row[3:]])
    table["prompt"] = [f"prompt {i}" for i in range(len(table))]
    return pd.concat([table] * n, ignore_index=True)


def test_samples_of_a_prompt_count_as_one_item_in_agreement_and_over_refusal():
    rows = list(measures.compliance_rows(sampled(5), "j", np.random.default_rng(0)))
    regulated = next(row for row in rows if row["group"] == "regulated")
    part = sampled(5).query("kind == 'regulated'")
    expected = compare_clustered(
        part["before_j"].to_numpy(bool),
        part["after_j"].to_numpy(bool),
        part["prompt"].tolist(),
        np.random.default_rng(0),
    )
    assert regulated == measures.metric_row("agreement", "regulated", expected, unit="share", judge="j")
    assert {row["test"] for row in rows} == {"cluster sign flip"}
    once = {row["group"]: row for row in measures.compliance_rows(sampled(1), "j")}
    assert {row["test"] for row in once.values()} == {"McNemar exact"}


def test_agreement_with_the_old_policy_takes_samples_of_a_prompt_for_one_item():
    rules = [{"id": "r", "description": "d", "check": {"kind": "forbidden", "patterns": ["two"]}}]
    old = parse_policy({"name": "old", "version": "1", "text": "t", "rules": rules}, source="test")
    from realignment.oracles.rules import RulesOracle

    row = measures.old_policy_row(pd.concat([ANSWERS] * 4, ignore_index=True), RulesOracle(), old)
    assert (row["n"], row["test"]) == (8, "cluster sign flip")


def test_samples_are_not_corrected_as_if_each_were_a_prompt():
    right = {"true_positives": 90, "false_negatives": 10, "true_negatives": 90, "false_positives": 10}
    quality = {"money": right, "law": right, "ordinary": right}
    assert list(measures.corrected_rows(sampled(1), "j", quality))
    assert list(measures.corrected_rows(sampled(2), "j", quality)) == []


def test_the_agreement_of_two_judges_is_measured_where_both_have_spoken():
    verdicts = pd.DataFrame(
        {"after_a": [True, True, False, False, None], "after_b": [True, False, False, False, True]}
    ).astype("boolean")
    (comparison,) = measures.compare_judges(verdicts, ["a", "b"])
    # Observed 3/4; by chance 2/4 · 1/4 + 2/4 · 3/4 = 1/2.
    assert comparison == {"judges": ["a", "b"], "n": 4, "agreement": 0.75, "kappa": pytest.approx(0.5)}


def test_judges_that_never_meet_have_no_agreement():
    verdicts = pd.DataFrame({"after_a": [True, None], "after_b": [None, True]}).astype("boolean")
    (comparison,) = measures.compare_judges(verdicts, ["a", "b"])
    assert comparison == {"judges": ["a", "b"], "n": 0, "agreement": None, "kappa": None}
