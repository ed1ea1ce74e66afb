"""How many items a rule needs: against search by brute force, and what the table lets be known."""

import numpy as np
import pytest
from gate_tables import rule, share

from realignment.promotion.sample_size import (
    explain_too_few,
    find_discordance,
    needed_n,
    smallest_n,
    unchanged_half_width,
)
from realignment.statistics import newcombe_interval


def needed_by_search(share_before, discordance, margin):
    """Count up until the interval of a candidate without change lies within the margin."""
    n = 1
    while True:
        changed = discordance / 2 * n
        both = share_before * n - changed
        low, high = newcombe_interval(both, changed, changed, (1 - share_before) * n - changed)
        if -margin <= low and high <= margin:
            return n
        n += 1


@pytest.mark.parametrize("share_before", [0.1, 0.5, 0.667])
@pytest.mark.parametrize("discordance", [0.0, 0.05, 0.142, 0.2])
@pytest.mark.parametrize("margin", [0.05, 0.1, 0.3])
def test_the_number_of_items_is_what_a_search_finds(share_before, discordance, margin):
    found = needed_n(share_before, discordance, margin)
    assert found == needed_by_search(share_before, discordance, margin)


def test_one_item_fewer_is_too_few_and_more_are_enough():
    n = needed_n(0.6, 0.15, 0.05)
    assert unchanged_half_width(n - 1, 0.6, 0.15) > 0.05
    widths = [unchanged_half_width(size, 0.6, 0.15) for size in range(n, 4 * n)]
    assert max(widths) <= 0.05
    assert sorted(widths, reverse=True) == widths


def test_no_number_of_items_excludes_a_loss_of_nothing_at_all():
    assert needed_n(0.5, 0.1, 0.0) is None
    assert smallest_n(lambda n: False) is None
    assert smallest_n(lambda n: True) == 1


def test_a_share_at_the_edge_has_room_for_the_changes():
    assert unchanged_half_width(100, 0.0, 0.2) == unchanged_half_width(100, 0.1, 0.2)
    assert unchanged_half_width(100, 1.0, 0.0) > 0


def test_the_share_of_changed_items_is_found_from_the_row_of_the_table():
    rng = np.random.default_rng(0)
    for _ in range(60):
        n = int(rng.integers(2, 160))
        cells = rng.multinomial(n, rng.dirichlet(np.ones(4)))
        row = share("agreement", "regulated", n, cells[0], cells[1], cells[2])
        assert find_discordance(row) == pytest.approx((cells[0] + cells[1]) / n), cells


def test_a_mean_needs_items_by_the_square_of_its_interval():
    row = share("length", "overall", 50, 10, 10, 10) | {
        "test": "Wilcoxon signed-rank", "difference": 0.0, "difference_low": -2.0, "difference_high": 2.0
    }  # fmt: skip
    assert "about 200 are needed" in explain_too_few(rule(no_loss_beyond=1.0), row)
    assert explain_too_few(rule(no_loss_beyond=3.0), row) == ""
    assert "no number is enough" in explain_too_few(rule(no_loss_beyond=0), row)


def test_a_gain_that_no_candidate_can_reach_is_said_to_be_out_of_reach():
    row = share("agreement", "regulated", 40, 0, 1, 38)
    assert "no number is enough" in explain_too_few(rule(side="difference", min=0.1), row)
    assert "are needed" in explain_too_few(rule(min=0.99), row)
    assert explain_too_few(rule(min=0.99, bound="point"), row) == ""
