"""The figures hold the numbers of the comparison, and say so where there are none."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from realignment.baselines.figure_data import LOGRATIOS, difference_matrix
from realignment.baselines.figures import draw_differences, draw_logratios, draw_tradeoffs

DRAWN = (draw_tradeoffs, draw_differences, draw_logratios)


def test_every_point_stands_at_its_means_with_its_intervals(comparison):
    leading = comparison.leading("style").set_index(["metric", "arm"])
    points = [trace for trace in draw_tradeoffs(comparison, "style").data if trace.mode == "markers+text"]
    assert len(points) == 4
    drift = points[-1]
    for arm, x, y, up, down in zip(
        drift.customdata, drift.x, drift.y, drift.error_y.array, drift.error_y.arrayminus, strict=True
    ):
        assert x == leading.loc[("kl_drift", arm), "value"]
        row = leading.loc[("agreement", arm)]
        assert (y, y + up, y - down) == pytest.approx((row["value"], row["high"], row["low"]))


def test_the_front_alone_is_filled(comparison):
    figure = draw_tradeoffs(comparison, "style")
    line, points = figure.data[0], figure.data[1]
    filled = {
        arm for arm, symbol in zip(points.customdata, points.marker.symbol, strict=True) if symbol == "circle"
    }
    assert len(filled) == len(line.x)
    assert {f"<b>{arm}</b>" for arm in filled} == {text for text in points.text if text.startswith("<b>")}


def test_marks_of_the_matrix_are_the_corrected_tests(comparison):
    figure = draw_differences(comparison, "style")
    matrix = difference_matrix(comparison, "style")
    texts = np.array(figure.data[0].text)
    marked = np.array([[text.endswith("*</b>") for text in row] for row in texts])
    np.testing.assert_array_equal(marked, matrix.p_values < 0.05)
    np.testing.assert_allclose(figure.data[0].z, 100 * matrix.differences)  # in points


def test_bars_are_the_log_ratios(comparison):
    figure = draw_logratios(comparison, "labels")
    leading = comparison.leading("labels").set_index(["metric", "arm"])["value"]
    assert [bar.name for bar in figure.data] == [label for label, _ in LOGRATIOS.values()]
    for metric, bar in zip(LOGRATIOS, figure.data, strict=True):
        for arm, height in zip(bar.x, bar.y, strict=True):
            assert height == leading[metric, arm]


@pytest.mark.parametrize("draw", DRAWN, ids=lambda draw: draw.__name__)
def test_where_nothing_was_measured_a_figure_says_so(comparison, draw):
    means = comparison.means
    bare = means[(means["metric"] == "agreement") & (means["arm"] == "trace")]
    none = replace(comparison, means=bare, differences=comparison.differences.iloc[:0])
    figure = draw(none, "style")
    assert len(figure.data) == 0
    assert figure.layout.annotations[0].text


@pytest.mark.parametrize("draw", DRAWN, ids=lambda draw: draw.__name__)
def test_names_from_the_data_are_no_markup(comparison, draw):
    def spoil(table, *columns):
        return table.assign(**{c: table[c].replace("sft", "<b>sft</b>") for c in columns})

    spoilt = replace(
        comparison,
        cells=spoil(comparison.cells, "arm"),
        means=spoil(comparison.means, "arm"),
        differences=spoil(comparison.differences, "first", "second"),
    )
    text = draw(spoilt, "style").to_json().replace("\\u003c", "<")
    assert "&lt;b&gt;sft" in text
    assert "<b>sft" not in text


def test_a_matrix_of_what_cannot_be_compared_is_drawn(comparison):
    unknown = comparison.differences.assign(difference=np.nan, p_holm=np.nan)
    figure = draw_differences(replace(comparison, differences=unknown), "style")
    assert pd.isna(np.array(figure.data[0].z)).all()
