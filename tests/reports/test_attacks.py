"""The figure of attacks holds every share with its interval: attacks above, rules below."""

import pandas as pd
import pytest
from made_up_run import attack_success, evaluation

from realignment.reports import draw_attacks


def ticks(figure):
    """Texts of the panels' groups, from top to bottom."""
    return [list(axis.ticktext) for axis in figure.select_yaxes(col=1)]


def test_every_share_is_drawn_with_its_interval():
    table = attack_success()
    figure = draw_attacks(pd.concat([evaluation(), table]))
    points = 0
    for trace in figure.data:
        for x, up, down, (group, n, low, high) in zip(
            trace.x, trace.error_x.array, trace.error_x.arrayminus, trace.customdata, strict=True
        ):
            assert (x - down, x + up) == pytest.approx((low, high))
            assert ((table["group"] == group) & (table["n"] == n) & (table[trace.name] == x)).any()
            points += 1
    assert points == 2 * len(table)


def test_all_attacks_together_come_first_and_the_plain_request_is_named():
    attacks, rules = ticks(draw_attacks(attack_success()))
    assert attacks[0] == "<b>all attacks together</b>  (n = 32)"
    assert attacks[1] == "no attack: the plain request  (n = 16)"
    assert attacks[2:] == ["fictional-nesting  (n = 16)", "refusal-suppression  (n = 16)"]
    assert rules == ["no-directive  (n = 32)", "no-&lt;b&gt;  (n = 10)"]


def test_a_judge_that_names_no_rules_has_one_panel():
    table = attack_success()
    figure = draw_attacks(table[~table["group"].str.startswith("rule:")])
    assert len(ticks(figure)) == 1


def test_beside_a_judge_that_names_rules_another_may_have_none():
    table = attack_success()
    plain = table[~table["group"].str.startswith("rule:")].assign(judge="classifier")
    figure = draw_attacks(pd.concat([table, plain]))
    drawn = [trace for trace in figure.data if len(trace.x)]
    assert sum(len(trace.x) for trace in drawn) == 2 * (len(table) + len(plain))


def test_without_attacks_the_figure_says_so():
    for table in (pd.DataFrame(), evaluation()):
        figure = draw_attacks(table)
        assert len(figure.data) == 0
        assert figure.layout.annotations[0].text == "No answer to an attack was judged."
