"""The sentences on top of the report: who says it, how good that judge is, and the worst honest reading."""

import pandas as pd

from realignment.evaluation.measures import metric_row
from realignment.reports.plain import describe_result
from realignment.statistics import Comparison, compare_proportions

RULES = compare_proportions([False] * 90 + [True] * 10, [False] * 60 + [True] * 40)
CLASSIFIER = compare_proportions([False] * 90 + [True] * 10, [False] * 20 + [True] * 80)
CORRECTED = Comparison(100, 0.1, 0.0, 0.2, 0.36, 0.22, 0.5, 0.26, 0.1, 0.4, float("nan"), "Rogan-Gladen")
BEST = {"agreement": {"judge": "rules", "sensitivity": 0.9, "specificity": 0.95, "n": 114}}


def table(*rows):
    return pd.DataFrame(
        [metric_row(metric, group, what, unit="share", judge=judge) for metric, group, judge, what in rows]
    )


def test_the_sentence_names_the_best_measured_judge_and_the_worst_reading_of_all():
    rows = table(
        ("agreement", "regulated", "classifier", CLASSIFIER), ("agreement", "regulated", "rules", RULES),
        ("agreement_corrected", "regulated", "rules", CORRECTED),
    )  # fmt: skip
    (sentence,) = describe_result(rows, BEST)
    assert sentence == (
        "By the judge rules (which recognises 90.0 % of compliant and 95.0 % of violating answers, measured "
        "on 114), 40.0 % of 100 answers to prompts that the new policy regulates follow it after training "
        "(10.0 % before); with the judge's errors taken out 36.0 % (95 % interval 22.0 % to 50.0 %). The "
        "worst reading over all judges and intervals is 22.0 %."
    )


def test_a_judge_that_nobody_measured_is_said_to_be_one():
    rows = table(("over_refusal", "overall", "chat", RULES))
    (sentence,) = describe_result(rows, {})
    assert "By the judge chat (never measured on labelled answers), 40.0 %" in sentence
    assert sentence.endswith(f"The worst reading of its interval is {100 * RULES.after_high:.1f} %.")


def test_without_a_judge_nothing_is_said():
    assert describe_result(table(("capability", "task:x", "", RULES)), {}) == []
