"""The headline figures of a run, in a form that scripts can rely on."""

import json
from dataclasses import asdict

import numpy as np
import pandas as pd

from realignment.evaluation.measures import metric_row
from realignment.promotion.summary import headline, summarize, worst_task
from realignment.statistics import compare_proportions

YES, NO = [True] * 10, [False] * 10
UP = compare_proportions([False] * 8 + [True] * 2, [True] * 9 + [False])
FLAT = compare_proportions(YES, YES)


def table(*rows):
    return pd.DataFrame(
        [metric_row(metric, group, what, unit="share", judge=judge) for metric, group, judge, what in rows]
    )


EVERYTHING = table(
    ("agreement", "regulated", "rules", FLAT), ("agreement", "regulated", "classifier", UP),
    ("agreement", "domain:law", "classifier", FLAT), ("over_refusal", "overall", "rules", FLAT),
    ("over_refusal", "kind:ordinary", "classifier", UP), ("capability", "task:a", "", UP),
)  # fmt: skip
TIMINGS = {"seconds": {"judging": 1.5}, "peak_memory_mib": 900}
MODEL = {"name": "assistant", "version": "3", "uri": "models:/assistant/3", "aliases": ["candidate"]}
REST = {
    "splits": {"INVERT": 3, "PUNISH": 2, "RETAIN": 4, "REVIEW": 0},
    "oracle": {"oracle": "rules", "accuracy": 0.97},
    "gate": {"passed": True, "reasons": (), "checks": [1]},
    "model": MODEL,
    "timings": TIMINGS,
}


BEST = {"agreement": {"judge": "classifier", "sensitivity": 0.9, "specificity": 0.8, "n": 60}}


def figures(comparison, judge):
    return {
        "before": comparison.before, "after": comparison.after, "difference": comparison.difference,
        "interval": [comparison.difference_low, comparison.difference_high], "n": 10, "judge": judge,
    }  # fmt: skip


def test_the_headline_is_the_best_measured_judge_never_the_highest_figure():
    assert headline(EVERYTHING, "agreement", BEST) == figures(UP, "classifier") | {
        "judge_quality": {"sensitivity": 0.9, "specificity": 0.8, "n": 60},
        "corrected": None,
        "judges": [
            figures(FLAT, "rules") | {"corrected": None}, figures(UP, "classifier") | {"corrected": None}
        ],
    }  # fmt: skip
    rules = {"agreement": {"judge": "rules", "sensitivity": None, "specificity": None, "n": 0}}
    found = headline(EVERYTHING, "agreement", rules)
    assert (found["judge"], found["judge_quality"]) == ("rules", None)


def test_figures_without_the_judges_errors_stand_beside_the_raw_ones():
    corrected = table(("agreement_corrected", "regulated", "classifier", FLAT))
    found = headline(pd.concat([EVERYTHING, corrected]), "agreement", BEST)
    assert found["corrected"] == figures(FLAT, "classifier")
    assert [judge["corrected"] for judge in found["judges"]] == [None, figures(FLAT, "classifier")]


def test_a_judge_that_judged_nothing_of_the_group_does_not_lead():
    assert headline(EVERYTHING, "over_refusal", {"over_refusal": {"judge": "chat"}})["judge"] == "rules"


def test_a_figure_without_judge_says_so():
    assert worst_task(EVERYTHING)["judge"] is None


def test_capability_is_that_of_the_task_that_may_have_fallen_furthest():
    """Not of the one with the lowest difference, if that is known better."""
    sure = compare_proportions(YES * 20 + NO * 20, [False] * 44 + YES * 15 + [True] * 6 + NO * 20)
    unsure = compare_proportions([True, True, False, False], [True, False, True, False])
    assert sure.difference < unsure.difference == 0
    assert unsure.difference_low < sure.difference_low
    rows = table(
        ("capability", "task:long", "", sure), ("capability", "task:short", "", unsure),
        ("capability", "task:same", "", FLAT), ("bits_per_byte", "text", "", unsure),
    )  # fmt: skip
    found = worst_task(rows)
    assert found["task"] == "short"
    assert found["interval"] == [unsure.difference_low, unsure.difference_high]


def test_a_task_without_interval_does_not_hide_a_loss():
    rows = table(("capability", "task:one", "", UP), ("capability", "task:loss", "", FLAT))
    rows.loc[rows["group"] == "task:one", ["difference_low", "difference_high"]] = np.nan
    assert worst_task(rows)["task"] == "loss"


def test_what_was_not_measured_is_null():
    assert headline(EVERYTHING[EVERYTHING["group"] != "regulated"], "agreement") is None
    assert worst_task(EVERYTHING.iloc[:0]) is None


def test_the_summary_has_the_promised_fields_and_survives_json():
    summary = summarize(EVERYTHING, **REST)
    assert list(summary) == [
        "agreement", "over_refusal", "capability", "splits", "oracle_accuracy", "gate", "model", "seconds",
        "peak_memory_mib",
    ]  # fmt: skip
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["oracle_accuracy"] == 0.97
    assert summary["gate"] == {"passed": True, "reasons": []}
    assert summary["model"] == {"name": "assistant", "version": "3", "uri": "models:/assistant/3"}
    assert summary["seconds"] == {"judging": 1.5}
    assert summary["capability"]["difference"] == asdict(UP)["difference"]


def test_labels_as_oracle_have_no_accuracy_for_they_are_the_truth():
    summary = summarize(EVERYTHING, **REST | {"oracle": {"oracle": "labels", "accuracy": 1.0}})
    assert summary["oracle_accuracy"] is None
