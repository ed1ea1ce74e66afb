"""The tables of means and differences hold what the estimates of single arms and pairs are."""

import numpy as np
import pandas as pd
import pytest
from made_up_cells import SEEDS, made_up_cells, made_up_items, rows_of

from realignment.baselines.crossed import Term, estimate
from realignment.baselines.differences import (
    DIFFERENCE_COLUMNS,
    MEAN_COLUMNS,
    arrange,
    find_untrained,
    tabulate_differences,
    tabulate_means,
)
from realignment.records import DataError

METHODS = ("reference", "sft", "trace")


@pytest.fixture(scope="module")
def items():
    return made_up_items(sets=("style",), methods=METHODS, prompts=30)


def rng():
    return np.random.default_rng(1)


def select(table, **values):
    for column, value in values.items():
        table = table[table[column] == value]
    (row,) = table.to_dict("records")
    return row


def test_means_are_over_seeds_and_items(items):
    table = tabulate_means(items, untrained={"reference"}, resamples=500, rng=rng())
    assert tuple(table.columns) == MEAN_COLUMNS
    row = select(table, metric="agreement", arm="trace")
    part = items[(items["metric"] == "agreement") & (items["method"] == "trace")]
    assert row["value"] == pytest.approx(part["value"].mean())
    assert (row["seeds"], row["n"], row["clusters"], row["covers"]) == (3, 30, 30, "seeds and prompts")
    assert row["low"] < row["bootstrap_high"]
    assert select(table, metric="agreement", arm="reference")["covers"] == "prompts (no training)"
    # What is 0 by definition has no interval, and is no share of items.
    drift = select(table, metric="kl_drift", arm="reference")
    assert (drift["value"], drift["covers"]) == (0, "nothing")


def test_differences_are_of_the_same_items_of_both(items):
    pairs = [("trace", "sft"), ("sft", "trace"), ("trace", "trace")]
    gaps = items.copy()
    metric = gaps["metric"] == "agreement"
    gaps.loc[metric & (gaps["method"] == "sft") & (gaps["item"] == "test-4"), "value"] = np.nan
    table = tabulate_differences(gaps, pairs, resamples=500, rng=rng())
    assert tuple(table.columns) == DIFFERENCE_COLUMNS
    row = select(table, metric="agreement", first="trace", second="sft")
    kept = gaps[metric & (gaps["item"] != "test-4")]
    means = kept.groupby("method")["value"].mean()
    assert row["difference"] == pytest.approx(means["trace"] - means["sft"])
    assert (row["n"], row["first_seeds"], row["second_seeds"]) == (29, 3, 3)
    turned = select(table, metric="agreement", first="sft", second="trace")
    assert turned["difference"] == pytest.approx(-row["difference"])
    assert (turned["low"], turned["high"]) == pytest.approx((-row["high"], -row["low"]))
    assert (turned["bootstrap_low"], turned["bootstrap_high"]) == pytest.approx(
        (-row["bootstrap_high"], -row["bootstrap_low"])
    )
    itself = select(table, metric="agreement", first="trace", second="trace")
    assert (itself["difference"], itself["p_value"], itself["n"]) == (0, 1, 30)
    assert np.isnan(itself["bootstrap_low"])  # the same seeds are drawn for both


def test_seeds_and_rows_may_come_in_any_order(items):
    shuffled = items.sample(frac=1, random_state=3)
    one = tabulate_differences(items, [("trace", "sft")], resamples=10, rng=rng())
    other = tabulate_differences(shuffled, [("trace", "sft")], resamples=10, rng=rng())
    columns = ["metric", "difference", "error", "freedom", "p_value"]
    pd.testing.assert_frame_equal(
        one[columns].sort_values("metric").reset_index(drop=True),
        other[columns].sort_values("metric").reset_index(drop=True),
    )


def test_a_pair_that_a_figure_does_not_have_is_left_out(items):
    assert len(tabulate_differences(items, [("trace", "u2a")], resamples=10, rng=rng())) == 0


def test_the_same_generator_gives_the_same_table(items):
    one = tabulate_means(items, resamples=50, rng=rng())
    pd.testing.assert_frame_equal(one, tabulate_means(items, resamples=50, rng=rng()))


def test_items_of_a_prompt_count_as_one_cluster():
    """Two answers to each prompt that are always alike tell no more than one."""
    values = np.random.default_rng(4).normal(0, 1, (3, 20))
    cell = {"set": "s", "method": "m", "variant": ""}
    once = pd.DataFrame(rows_of(values, cell=cell, metric="answer_tokens", group="g"))
    twice = pd.DataFrame(
        rows_of(np.repeat(values, 2, axis=1), cell=cell, metric="answer_tokens", group="g", per_prompt=2)
    )
    one, other = (tabulate_means(table, resamples=50, rng=rng()).iloc[0] for table in (once, twice))
    assert (other["n"], other["clusters"]) == (40, 20)
    assert (other["low"], other["high"]) == pytest.approx((one["low"], one["high"]))


def test_the_design_aligns_items_by_name(items):
    part = items[(items["metric"] == "agreement")]
    design = arrange(part.sample(frac=1, random_state=1).reset_index(drop=True))
    names = part.sample(frac=1, random_state=1)["item"].drop_duplicates()
    for arm, values in design.values.items():
        rows = part[part["method"] == arm].set_index(["seed", "item"])["value"]
        for s, seed in enumerate(SEEDS[: len(values)]):
            assert [rows[seed, name] for name in names] == values[s].tolist()


def test_an_item_of_two_prompts_is_refused(items):
    part = items[(items["metric"] == "agreement")].copy()
    part.iloc[3, part.columns.get_loc("cluster")] = "elsewhere"
    with pytest.raises(DataError, match="belongs to the clusters"):
        arrange(part)


def test_a_method_without_a_step_of_training_is_untrained(items):
    cells = made_up_cells(items)
    assert find_untrained(cells) == {"reference"}
    assert find_untrained(cells.assign(status="failed")) == set()


def test_a_variant_is_an_arm_of_its_own(items):
    both = pd.concat([items, items[items["method"] == "sft"].assign(variant="lr=0.1")])
    table = tabulate_differences(both, [("sft", "sft, lr=0.1")], resamples=10, rng=rng())
    assert (table["difference"] == 0).all()


def test_twenty_thousand_resamples_of_a_table_are_the_default(items):
    part = items[items["metric"] == "agreement"]
    row = tabulate_differences(part, [("trace", "sft")], rng=rng()).iloc[0]
    terms = [Term(sign, arrange(part).values[arm]) for sign, arm in ((1, "trace"), (-1, "sft"))]
    assert row["error"] == pytest.approx(estimate(terms, np.arange(30), share=True).error)
    assert row["bootstrap_low"] < row["difference"] < row["bootstrap_high"]
