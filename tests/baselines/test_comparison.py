"""Which figures lead, what is compared with what, and what is corrected together."""

from dataclasses import replace
from itertools import combinations

import pandas as pd
import pytest

from realignment.baselines.comparison import Choices, Question, compare
from realignment.baselines.holm import adjust_with_holm
from realignment.records import DataError

SMALL = {"resamples": 20}


def test_a_set_without_generated_answers_is_led_by_preference_accuracy(comparison):
    assert comparison.headline("style") == "agreement"
    assert comparison.headline("labels") == "preference_accuracy"


def test_one_group_and_one_judge_of_each_metric_lead(comparison):
    for name in comparison.sets:
        leading = comparison.leading(name)
        assert not leading.duplicated(["arm", "metric"]).any()
        assert set(leading["metric"]) == set(comparison.means.loc[comparison.means["set"] == name, "metric"])
    agreement = comparison.leading("style")
    assert set(agreement.loc[agreement["metric"] == "agreement", "judge"]) == {"rules"}
    assert "classifier" in set(comparison.means["judge"])


def test_every_arm_is_compared_with_the_comparator_and_every_question_is_asked(comparison):
    for name in comparison.sets:
        asked = comparison.asked(name)
        others = set(comparison.arms(name)) - {"trace"}
        for metric, rows in asked.groupby("metric"):
            against = rows[rows["second"] == "trace"]
            assert set(against["first"]) == others, metric
        # `trace` over `naive_dpo` is the same test as `naive_dpo` over `trace`: it is there once.
        pairs = asked[["metric", "first", "second"]].apply(
            lambda row: (row["metric"], frozenset(row[1:])), axis=1
        )
        assert not pairs.duplicated().any()


def test_all_pairs_are_compared_by_the_headline_alone(comparison):
    table = comparison.all_pairs("style")
    expected = {frozenset(pair) for pair in combinations(comparison.arms("style"), 2)}
    assert {frozenset(pair) for pair in zip(table["first"], table["second"], strict=True)} == expected
    assert set(table["metric"]) == {"agreement"}


def test_each_metric_of_a_set_is_corrected_by_itself(comparison):
    for name in comparison.sets:
        for table in (comparison.asked(name), comparison.all_pairs(name)):
            for _, rows in table.groupby("metric"):
                tested = rows[rows["p_value"].notna()]
                assert (rows["comparisons"] == len(tested)).all()
                expected = adjust_with_holm(tested["p_value"].to_numpy())
                assert tested["p_holm"].tolist() == pytest.approx(expected.tolist())


def test_a_question_between_two_others_joins_the_comparisons_of_its_metric(tables):
    items, cells, _ = tables
    question = Question("Does NPO beat SFT?", "npo_retain", "sft", "over_refusal")
    part = items[(items["set"] == "style") & items["metric"].isin(["agreement", "over_refusal"])]
    part = part[part["judge"] == "rules"]
    found = compare(part, cells, Choices("trace", (question,), **SMALL)).asked("style")
    counts = found.groupby("metric")["comparisons"].first()
    assert counts["over_refusal"] == counts["agreement"] + 1


def test_cells_that_are_planned_and_not_there_are_missing(comparison):
    missing = comparison.missing
    assert missing["arm"].tolist() == ["trace, kl_weight=0.5"] * 3
    assert missing["seed"].tolist() == [1, 2, 3]


def test_a_comparator_and_a_set_may_be_missing_as_long_as_they_are_planned(tables, choices):
    items, cells, planned = tables
    later = planned.assign(set="later", method="u2a", variant="")
    everything = pd.concat([planned, later]).drop_duplicates()
    found = compare(items, cells, replace(choices, comparator="u2a", questions=(), **SMALL), everything)
    assert found.sets == ["style", "labels", "later"]
    assert found.arms("later") == []
    assert len(found.asked("style")) == 0
    assert len(found.all_pairs("style")) == 21


def test_the_same_tables_give_the_same_comparison(tables, choices, comparison):
    again = compare(*tables[:2], choices, tables[2])
    pd.testing.assert_frame_equal(again.means, comparison.means)
    pd.testing.assert_frame_equal(again.differences, comparison.differences)


def test_one_arm_alone_has_means_and_no_differences(tables):
    items, cells, _ = tables
    alone = items[(items["method"] == "trace") & (items["judge"] != "classifier")]
    found = compare(alone, cells, Choices("trace", **SMALL))
    assert found.arms("style") == ["trace"]
    assert len(found.differences) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"comparator": "mine"}, "The comparator 'mine' is no arm"),
        ({"judges": {}}, "agreement of the set style is by the judges .*choose in `judges`"),
        ({"judges": {"style": {"agreement": "people"}}}, "'people' was chosen"),
        ({"groups": {"style": {"kl_drift": "lew"}}}, "'lew' was chosen; choose in `groups`"),
    ],
)
def test_choices_that_do_not_fit_are_named(tables, choices, change, message):
    items, cells, _ = tables
    with pytest.raises(DataError, match=message):
        compare(items, cells, replace(choices, **change))


def test_groups_of_which_none_leads_by_itself_have_to_be_chosen(tables):
    items, cells, _ = tables
    part = items[(items["metric"] == "agreement") & (items["judge"] == "rules")]
    two = pd.concat([part.assign(group="law"), part.assign(group="money")])
    with pytest.raises(DataError, match="choose in `groups`"):
        compare(two, cells, Choices("trace", **SMALL))
    found = compare(two, cells, Choices("trace", groups={"style": {"agreement": "money"}}, **SMALL))
    assert set(found.leading("style")["group"]) == {"money"}


def test_a_set_without_a_headline_and_a_run_without_a_finished_cell_are_refused(tables):
    items, cells, _ = tables
    with pytest.raises(DataError, match="expected one of \\['agreement', 'preference_accuracy'\\]"):
        compare(items[items["metric"] == "kl_drift"], cells, Choices("trace", **SMALL))
    with pytest.raises(DataError, match="No cell is finished"):
        compare(items.iloc[:0], cells.assign(status="failed"), Choices("trace", **SMALL))
