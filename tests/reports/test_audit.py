"""The figures of an audit show what was measured, and say why where they show nothing."""

import numpy as np
import pandas as pd
import pytest

from realignment.audit.measuring import COLUMNS
from realignment.reports import audit

METRICS = pd.DataFrame(
    [
        ("disposition", "accuracy", "all pairs", 0.9, 0.8, 0.95, 100),
        ("disposition", "misrouted", "all pairs", 0.1, 0.05, 0.2, 100),
        ("disposition", "f1", "INVERT", 0.8, 0.7, 0.9, 100),
        ("disposition", "f1", "PUNISH", np.nan, np.nan, np.nan, 100),
        ("verdict", "kappa", "all verdicts", -0.1, -0.2, 0.1, 200),
        ("rule", "precision", "no-<b>bold</b>", 1.0, 0.6, 1.0, 4),
    ],
    columns=list(COLUMNS),
)
KINDS = ("INVERT", "PUNISH", "RETAIN")
CONFUSION = pd.DataFrame(
    [
        *((a, t, 90.0 if a == t else 5.0, 1.0, 99.0, 30) for a in ("INVERT", "RETAIN") for t in KINDS),
        *(("PUNISH", t, 0.0, 0.0, 0.0, 0) for t in KINDS),
    ],
    columns=["assigned", "true", "pairs", "low", "high", "audited"],
)
BINS = pd.DataFrame(
    [(8, 0.92, 0.7, 0.6, 0.8, 0.4, 40), (9, 0.99, 0.95, 0.9, 1.0, 0.6, 60)],
    columns=["bin", "confidence", "accuracy", "low", "high", "share", "n"],
)
HISTORY = pd.DataFrame(
    {
        "step": [10, 20], "accuracy": [0.8, 0.9], "accuracy_low": [0.6, 0.8], "accuracy_high": [0.9, 0.95],
        "misrouted": [0.2, 0.1], "misrouted_low": [0.1, 0.05], "misrouted_high": [0.4, 0.2],
    }
)  # fmt: skip


def test_every_figure_that_is_known_is_a_dot_with_its_interval_and_what_is_not_is_left_out():
    figure = audit.draw_scores(METRICS)
    dots = {y: x for trace in figure.data for x, y in zip(trace.x, trace.y, strict=True)}
    assert dots["right disposition"] == 0.9
    assert dots["INVERT: F1"] == 0.8
    assert "PUNISH: F1" not in dots
    assert dots["all verdicts: Cohen's κ"] == -0.1
    (first, *_) = figure.data
    assert first.x[0] + first.error_x.array[0] == pytest.approx(0.95)
    assert first.x[0] - first.error_x.arrayminus[0] == pytest.approx(0.8)
    low, high = figure.layout.xaxis.range
    assert low < -0.2
    assert high > 1


def test_the_name_of_a_rule_is_text_and_no_markup():
    labels = [label for trace in audit.draw_scores(METRICS).data for label in trace.y]
    assert "no-&lt;b&gt;bold&lt;/b&gt;: precision" in labels


def test_the_confusion_has_estimated_pairs_and_no_row_of_what_was_never_assigned():
    (heat,) = audit.draw_confusion(CONFUSION).data
    assert list(heat.y) == ["INVERT", "RETAIN"]
    assert heat.z[0] == pytest.approx((0.9, 0.05, 0.05))
    assert heat.text[1][2] == "<b>90</b><br>1 to 99<br>30 audited"


def test_reliability_has_a_point_per_bin_and_the_line_of_perfect_calibration():
    line, points = audit.draw_reliability(BINS).data
    assert (list(line.x), list(line.y)) == ([0.5, 1], [0.5, 1])
    assert list(points.y) == [0.7, 0.95]
    assert list(points.text) == ["40%", "60%"]


def test_growth_has_a_band_around_every_line():
    band, line, *_ = audit.draw_growth(HISTORY).data
    assert list(line.x) == [10, 20]
    assert list(band.y) == [0.9, 0.95, 0.8, 0.6]


@pytest.mark.parametrize(
    ("draw", "table"),
    [
        (audit.draw_scores, METRICS.head(0)), (audit.draw_confusion, CONFUSION.head(0)),
        (audit.draw_reliability, BINS.head(0)), (audit.draw_growth, HISTORY.head(0)),
    ],
)  # fmt: skip
def test_a_figure_of_nothing_says_so(draw, table):
    figure = draw(table)
    assert not figure.data
    assert "audited" in figure.layout.annotations[0].text
