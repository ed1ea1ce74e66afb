"""The Pareto front, the matrix and the places of labels."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realignment.baselines.figure_data import (
    PLACES,
    axis_range,
    difference_matrix,
    pareto_front,
    place_labels,
    tradeoff_panels,
)

NUMBERS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


@given(NUMBERS, st.booleans())
def test_the_front_is_what_no_point_beats(points, more_is_better):
    x, y = (np.array(values, dtype=float) for values in zip(*points, strict=True))
    expected = []
    for i in range(len(x)):
        beaten = False
        for j in range(len(x)):
            gain = x[j] - x[i] if more_is_better else x[i] - x[j]
            if gain >= 0 and y[j] >= y[i] and (gain > 0 or y[j] > y[i]):
                beaten = True
        expected.append(not beaten)
    assert pareto_front(x, y, more_is_better).tolist() == expected


def test_every_cost_that_was_measured_has_a_panel(comparison):
    panels = {panel.metric: panel for panel in tradeoff_panels(comparison, "style")}
    assert list(panels) == ["over_refusal", "capability:arithmetic", "capability:facts", "kl_drift"]
    assert panels["capability:facts"].more_is_better
    assert not panels["kl_drift"].more_is_better
    points = panels["kl_drift"].points.set_index("arm")
    leading = comparison.leading("style").set_index(["metric", "arm"])["value"]
    for arm in points.index:
        assert points.loc[arm, "x"] == leading["kl_drift", arm]
        assert points.loc[arm, "y"] == leading["agreement", arm]
    assert points.loc["reference", "front"]  # nothing drifts less
    assert [panel.metric for panel in tradeoff_panels(comparison, "labels")] == list(panels)[1:]


def test_the_matrix_is_antisymmetric_and_holds_every_difference(comparison):
    matrix = difference_matrix(comparison, "style")
    np.testing.assert_array_equal(matrix.differences, -matrix.differences.T)
    np.testing.assert_array_equal(matrix.p_values, matrix.p_values.T)
    assert np.isnan(np.diag(matrix.differences)).all()
    for row in comparison.all_pairs("style").to_dict("records"):
        place = matrix.arms.index(row["first"]), matrix.arms.index(row["second"])
        assert matrix.differences[place] == row["difference"]
        assert matrix.p_values[place] == row["p_holm"]
    means = comparison.leading("style").query("metric == 'agreement'").set_index("arm")["value"]
    assert means[matrix.arms].is_monotonic_decreasing
    assert matrix.comparisons == len(matrix.arms) * (len(matrix.arms) - 1) / 2


def points_of(x, y):
    x, y = np.array(x, dtype=float), np.array(y, dtype=float)
    ends = {f"{name}_{end}": values for name, values in (("x", x), ("y", y)) for end in ("low", "high")}
    return pd.DataFrame({"arm": [f"method_{i}" for i in range(len(x))], "x": x, "y": y, **ends})


def test_labels_of_close_points_stand_on_different_sides():
    places = place_labels(points_of([0.5, 0.5, 0, 1], [0.50, 0.53, 0, 1]), width=440, height=330)
    assert set(places) <= set(PLACES)
    assert places[0] != places[1]


def test_a_label_at_the_edge_stays_in_the_panel():
    places = place_labels(points_of([0, 1], [0, 1]), width=200, height=100)
    assert "right" not in places[1]


@pytest.mark.parametrize("values", [[0.0, 0.0], [3.0], [np.nan, np.nan]])
def test_an_axis_without_spread_has_a_range(values):
    low, high = axis_range(points_of(values, values), "x")
    assert low < high
    assert all(low <= value <= high for value in values if not np.isnan(value))
