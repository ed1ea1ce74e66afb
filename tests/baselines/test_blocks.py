"""The tables of the page hold the figures of the comparison."""

from dataclasses import replace

import pytest

from realignment.baselines.blocks import make_blocks, order_metrics


def block(comparison, name, title):
    (found,) = [one for one in make_blocks(comparison, name) if one.title.startswith(title)]
    for row in found.rows:
        assert len(row) == len(found.columns)
    return found


def line(found, first):
    (row,) = [row for row in found.rows if row[0].text == first]
    return dict(zip(found.columns, row, strict=True))


def test_results_stand_with_intervals_seeds_and_costs(comparison):
    row = line(block(comparison, "style", "Results"), "sft")
    leading = comparison.leading("style").set_index(["metric", "arm"])
    mean = leading.loc[("agreement", "sft")]
    assert row["agreement"].text == f"{100 * mean['value']:.1f} %"
    assert row["agreement"].interval == f"{100 * mean['low']:.1f} % to {100 * mean['high']:.1f} %"
    assert row["seeds"].text == "3"
    cells = comparison.cells.query("set == 'style' and arm == 'sft'")
    assert row["seconds"].text == f"{cells['seconds'].mean():,.0f}"
    assert row["tokens"].text == "31,000"
    assert row["peak MiB"].text == f"{cells['peak_mib'].max():,.0f}"


def test_the_headline_stands_first_and_is_of_the_set(comparison):
    assert block(comparison, "style", "Results").columns[2] == "agreement"
    columns = block(comparison, "labels", "Results").columns
    assert columns[2] == "preference accuracy"
    assert "agreement" not in columns


def test_metrics_that_the_page_does_not_know_come_last():
    metrics = ["bits_per_byte", "kl_drift", "capability:b", "new", "agreement", "capability:a"]
    assert order_metrics(metrics, "agreement") == [
        "agreement", "capability:b", "capability:a", "kl_drift", "bits_per_byte", "new",
    ]  # fmt: skip


def test_an_untrained_method_needs_no_mark_and_a_single_seed_has_one(comparison):
    row = line(block(comparison, "style", "Results"), "reference")
    assert "†" not in row["agreement"].interval
    single = comparison.means.assign(
        covers=comparison.means["covers"].replace("seeds and prompts", "prompts alone")
    )
    row = line(block(replace(comparison, means=single), "style", "Results"), "sft")
    assert row["agreement"].interval.endswith(" †")


def test_differences_of_the_headline_are_bold_where_they_are_told_apart(comparison):
    found = block(comparison, "style", "Differences: agreement")
    rows = comparison.asked("style").query("metric == 'agreement'")
    assert len(found.rows) == len(rows)
    for row in rows.to_dict("records"):
        entry = line(found, f"{row['first']} − {row['second']}")
        assert entry["points"].text == f"{100 * row['difference']:+.1f}"
        assert entry["points"].strong == (row["p_holm"] < 0.05)
        assert (
            entry["corrected interval"].text
            == f"{100 * row['holm_low']:+.1f} to {100 * row['holm_high']:+.1f}"
        )
    assert f"over the {len(rows)} comparisons" in found.note


def test_side_effects_are_the_other_metrics(comparison):
    found = block(comparison, "style", "Side effects")
    assert "over-refusal" in found.columns
    assert "agreement" not in found.columns
    entry = line(found, "sft − trace")["drift (KL), nats/token"]
    row = comparison.asked("style").query("metric == 'kl_drift' and first == 'sft'").iloc[0]
    assert float(entry.text) == pytest.approx(row["difference"], rel=0.01)


def test_other_judges_stand_beside_the_one_that_leads(comparison):
    found = block(comparison, "style", "Other groups and judges")
    assert found.columns == ("method", "agreement, test, judge classifier")
    assert len(found.rows) == len(comparison.arms("style"))
    assert not [one for one in make_blocks(comparison, "labels") if one.title.startswith("Other")]


def test_cells_that_failed_or_are_missing_are_named_with_their_reason(comparison):
    found = block(comparison, "style", "Cells that are not there")
    assert [[entry.text for entry in row] for row in found.rows] == [
        ["npo_retain", "3", "failed", "NaN | at step 7"],
        ["trace, kl_weight=0.5", "1, 2, 3", "missing", "not run yet"],
    ]
    assert not [one for one in make_blocks(comparison, "labels") if one.title.startswith("Cells")]
