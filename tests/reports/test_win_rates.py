"""The matrix of win rates says of each two models the same from both sides, and what it cannot tell."""

import pytest
from made_up_run import win_rates

from realignment.reports.win_rates import win_rate_section

MODELS = ("old", "middle", "new")


def test_every_two_models_have_a_cell_on_either_side_and_none_meets_itself():
    section = win_rate_section(win_rates(MODELS))
    assert section["models"] == list(MODELS)
    assert [block["group"] for block in section["blocks"]] == ["regulated", "overall", "kind:ordinary"]
    for block in section["blocks"]:
        lines = block["lines"]
        assert [line["model"] for line in lines] == list(MODELS)
        for i, line in enumerate(lines):
            assert line["cells"][i] is None
            for j in set(range(3)) - {i}:
                rates = [float(lines[a]["cells"][b]["rate"].rstrip(" %")) for a, b in ((i, j), (j, i))]
                assert sum(rates) == pytest.approx(100, abs=0.11)
                wins, losses = (lines[a]["cells"][b]["counts"].split(", ") for a, b in ((i, j), (j, i)))
                assert wins[0].split()[0] == losses[2].split()[0]
        assert sorted(line["rank"] for line in lines) == [1, 2, 3]


def test_only_a_rate_whose_interval_leaves_out_one_half_is_clear():
    report = win_rates()
    figures = report["groups"]["overall"]["win_rates"]
    for low, high, clear in ((0.4, 0.6, False), (0.51, 0.9, True), (0.1, 0.49, True), (None, None, False)):
        figures["after"]["before"] |= {"low": low, "high": high}
        (block,) = (b for b in win_rate_section(report)["blocks"] if b["group"] == "overall")
        assert block["lines"][1]["cells"][0]["clear"] == clear


def test_what_the_judge_left_open_is_said_with_the_reasons():
    report = win_rates() | {"unscored": 4, "unscored_reasons": [{"reason": "no reply", "n": 4}]}
    notes = win_rate_section(report)["notes"]
    assert notes[-1] == "4 comparisons have no verdict and are left out: no reply (4)."
    assert len(win_rate_section(report | {"position_bias": None, "order_disagreements": None})["notes"]) == 1


def test_two_models_that_never_met_have_no_figure():
    report = win_rates(MODELS)
    del report["groups"]["overall"]["win_rates"]["old"]["new"]
    (block,) = (b for b in win_rate_section(report)["blocks"] if b["group"] == "overall")
    assert block["lines"][0]["cells"][2]["rate"] == "n/a"


@pytest.mark.parametrize("report", [None, {}, {"comparisons": 0}])
def test_no_comparison_has_no_section(report):
    assert win_rate_section(report) is None
