"""Figures, page and terminal table of a made-up run hold its numbers; no text of a model ever runs."""

import json
import re
from dataclasses import fields

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
import pytest
from made_up_run import (
    DESTINATIONS,
    TRIAGE,
    attack_success,
    audit_report,
    corrections_report,
    evaluation,
    history,
    leakage,
    results,
    summary,
    triaged,
    weights,
    win_rates,
)

from realignment.pipelines.promotion.pipeline import REPORTED
from realignment.reports import (
    RunResults,
    draw_agreement,
    draw_attacks,
    draw_correction_leakage,
    draw_impact_weights,
    draw_training_curves,
    draw_triage_flow,
    render_report,
    render_summary_table,
)
from realignment.reports.leakage import PANELS as LEAKAGE_PANELS
from realignment.reports.sections import audit_section
from realignment.reports.style import DISPOSITION_COLOURS


@pytest.fixture(scope="module")
def page():
    return render_report(results())


def data_scripts(page):
    """The figures that the page holds, as parsed JSON."""
    return [
        json.loads(text)
        for text in re.findall(r"<script[^>]* data-plot=[^>]*>(.*?)</script>", page, re.DOTALL)
    ]


def flow_of(figure):
    flow = figure.data[0]
    names = [re.sub(r"\s*<b>.*", "", label).replace("<br>", ", ") for label in flow.node.label]
    return {
        (names[s], names[t]): n
        for s, t, n in zip(flow.link.source, flow.link.target, flow.link.value, strict=True)
    }


def test_the_flow_holds_every_count_and_keeps_them():
    flow = flow_of(draw_triage_flow(triaged(), DESTINATIONS))
    assert flow["chosen violates, rejected complies", "INVERT"] == 96
    assert flow["chosen unscored, rejected complies", "REVIEW"] == 9
    assert flow["all pairs", "chosen complies, rejected complies"] == 33
    assert flow["RETAIN", "training"] == 110
    assert sum(n for (source, _), n in flow.items() if source == "all pairs") == len(triaged())
    for disposition in ("INVERT", "PUNISH", "RETAIN"):
        arriving = sum(n for (_, target), n in flow.items() if target == disposition)
        assert arriving == sum(n for (source, _), n in flow.items() if source == disposition)


def test_labels_of_the_flow_carry_the_counts_and_dispositions_their_colour():
    node = draw_triage_flow(triaged()).data[0].node
    label = next(text for text in node.label if text.startswith("PUNISH"))
    assert label == "PUNISH  <b>58</b>"
    assert node.color[node.label.index(label)] == DISPOSITION_COLOURS["PUNISH"]
    assert "all pairs  <b>303</b>" in node.label


def test_impact_panels_hold_every_score_and_weight():
    table = weights()
    figure = draw_impact_weights(table)
    for disposition in ("INVERT", "PUNISH"):
        rows = table[table["disposition"] == disposition]
        scores, shown = (trace.x for trace in figure.data if trace.name == disposition)
        np.testing.assert_array_equal(scores, rows["score"])
        np.testing.assert_array_equal(shown, rows["weight"])


def test_training_curves_hold_the_history_and_leave_out_what_was_not_trained():
    table = history()
    lines = {trace.name: trace for trace in draw_training_curves(table).data}
    assert set(lines) == {"total", "INVERT", "PUNISH", "preferred", "dispreferred", "retained", "RETAIN"}
    np.testing.assert_array_equal(lines["preferred"].y, table["logratio_preferred"])
    np.testing.assert_array_equal(lines["RETAIN"].x, table["step"])


def test_whiskers_end_at_the_intervals_of_the_table():
    table = evaluation()
    figure = draw_agreement(table)
    for trace in figure.data:
        for x, up, down, (group, n, low, high) in zip(
            trace.x, trace.error_x.array, trace.error_x.arrayminus, trace.customdata, strict=True
        ):
            assert (x - down, x + up) == pytest.approx((low, high))
            assert ((table["group"] == group) & (table["n"] == n) & (table[trace.name] == x)).any()
    assert (
        sum(len(trace.x) for trace in figure.data)
        == 2 * table["metric"].isin(["agreement", "over_refusal"]).sum()
    )


def test_headline_groups_come_first_and_text_from_the_data_is_escaped():
    table = evaluation().assign(
        group=lambda t: t["group"].replace("domain:law", "domain:<a href='x'>law</a>")
    )
    ticks = draw_agreement(table.iloc[::-1]).layout.yaxis.ticktext
    assert ticks[0].startswith("<b>regulated</b>")
    assert any("&lt;a href=" in tick for tick in ticks)


@pytest.mark.parametrize(
    "figure",
    [draw_triage_flow, draw_impact_weights, draw_training_curves, draw_agreement],
    ids=lambda f: f.__name__,
)
def test_an_empty_table_gives_a_figure_that_says_so(figure):
    empty = figure(pd.DataFrame())
    assert isinstance(empty, go.Figure)
    assert len(empty.data) == 0
    assert empty.layout.annotations[0].text.endswith(".")


def test_the_page_loads_nothing_and_holds_plotly_once(page):
    own = page.replace(page[page.index("* plotly.js v") - 10 : page.index('<script id="themes"')], "")
    assert not re.search(r"<(script|img|iframe|link|source|video|audio)\b[^>]*\b(src|href)\s*=", own)
    assert not re.search(r"https?://|@import|url\(", own)
    assert page.count("* plotly.js v") == 1
    assert page.startswith("<!doctype html>")


def test_model_text_is_never_markup(page):
    assert "<script>alert" not in page
    assert "onerror=alert(1)>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_characters_that_no_file_can_hold_do_not_stop_the_report():
    assert "a?b" in render_report(RunResults(title="a\ud800b"))


def test_figures_reach_the_page_unchanged(page):
    shown = data_scripts(page)
    assert len(shown) == 7
    assert shown[0]["data"][0]["link"]["value"] == list(
        draw_triage_flow(triaged(), DESTINATIONS).data[0].link.value
    )
    assert all("template" not in figure["layout"] for figure in shown)


@pytest.mark.parametrize(
    "text",
    [
        "The gate passed",
        "models:/realigned-smollm2/3",
        "no-directive",
        "Rows of the source that were not used: 3",
        "96.2 %",
        "teach nothing about the policy",
        "over-refuses · classifier",
        "violates · rules",
        "direct · classifier",
        "not judged · rules",
        "(empty answer)",
        "learning_rate: 0.0001",
        "abababab",
        "91.0 % of 900 (89.0 % to 93.0 %)",
        "money: 40 of 42 compliant, 30 of 39 violating",
        "It labelled the training pairs.",
        "recognises 95.0 % of compliant and 77.0 % of violating answers, measured on 81",
    ],
)
def test_the_page_says(text, page):
    assert text in page


def test_only_differences_clear_of_zero_are_bold():
    table = (
        evaluation()
        .head(2)
        .assign(difference=[0.25, 0.5], difference_low=[-0.1, 0.4], difference_high=[0.6, 0.6])
    )
    page = render_report(results(evaluation_table=table))
    assert "<strong>+50.0</strong>" in page
    assert "+25.0" in page
    assert "<strong>+25.0</strong>" not in page


def test_figures_that_were_saved_and_loaded_again_look_the_same(page):
    saved = {
        name: pio.from_json(figure.to_json())
        for name, figure in vars(results()).items()
        if isinstance(figure, go.Figure)
    }
    assert len(saved) == 5
    assert data_scripts(render_report(results(**saved))) == data_scripts(page)


def test_every_row_used_is_said_and_no_table_of_rows_is_not_taken_for_that():
    assert "None: every row could be used." in render_report(
        results(rejected_rows=pd.DataFrame({"reason": []}))
    )
    assert "every row could be used" not in render_report(results(rejected_rows=None))


def test_labels_as_oracle_are_not_measured_by_themselves():
    report = {"oracle": "labels", "n": 606, "unscored": 0, "accuracy": 1.0, "interval": [0.99, 1.0]}
    page = render_report(results(oracle_report=report))
    assert "The labels of the data are the oracle: there is nothing to measure them by. 606 responses" in page
    assert "agrees with the hand-set truth" not in page


def part(page, name):
    """One section of the page, without its figures."""
    text = page[page.index(f'<section id="{name}"') :]
    return re.sub(r"<script.*?</script>|<[^>]+>", " ", text[: text.index("</section>")], flags=re.DOTALL)


def test_an_audit_of_these_splits_is_shown_with_its_intervals(page):
    shown = " ".join(part(page, "audit").split())
    assert audit_report()["meaning"] in shown
    assert "2.8 % 95 % interval 1.5 % to 7.7 %, n = 97" in shown.replace("&nbsp;", " ")
    assert "0.913 95 % interval 0.85 to 0.96" in shown
    assert "verdicts of people: 97 pairs, and 3 more without a truth" in shown
    assert "PUNISH INVERT 7 3 to 15 the complying answer is suppressed" in shown
    traces = audit_section(audit_report(), TRIAGE)["figure"].data
    dots = {y: x for trace in traces for x, y in zip(trace.x, trace.y, strict=True)}
    assert [y for trace in data_scripts(page)[1]["data"] for y in trace["y"]] == list(dots)
    assert dots["misrouted"] == 0.0281
    assert dots["PUNISH: recall"] == 0.88
    assert "PUNISH: F1" not in dots


@pytest.mark.parametrize("changes", [{"triage": {"invert_pairs": "99" * 32}}, None])
def test_an_audit_of_other_splits_and_none_are_told_apart_and_show_no_figure(changes):
    report = audit_report() | changes if changes else {}
    page = render_report(results(audit_report=report))
    shown = part(page, "audit")
    assert ("of other splits than those of this run" in shown) == bool(changes)
    assert ("The oracle was not audited" in shown) != bool(changes)
    assert "2.8" not in shown
    assert len(data_scripts(page)) == 6


def test_corrections_are_shown_by_writer_with_what_passed_and_why_others_did_not(page):
    shown = " ".join(part(page, "corrections").split())
    assert "41 70.7 % of 58" in shown
    assert "model &lt;i&gt;tiny&lt;/i&gt; 116 30 14 12.1 % 19.0 % to 81.0 %, n = 116" in shown
    assert "12 off topic 61, looping 25, no-directive 16" in shown


def test_value_leakage_is_shown_as_people_machine_and_their_difference(page):
    shown = " ".join(part(page, "corrections").split())
    assert "model complies 97.0 % 47.0 % -50.0 -71.0 to -28.0 20 and 20" in shown
    assert "model words 38.2 61.5 +23.3 +17.1 to +29.8" in shown
    assert "model AUC of telling them apart 0.5 0.93 +0.43 +0.31 to +0.5" in shown
    assert "hedging" not in shown, "style is in the figure"


def test_without_a_machine_nothing_is_compared_and_no_empty_figure_is_drawn():
    report = corrections_report()
    del report["writers"]["model"]
    page = render_report(results(corrections_report=report, correction_leakage=leakage().head(0)))
    assert "there is nothing to compare" in part(page, "corrections")
    assert len(data_scripts(page)) == 6


def test_a_machine_whose_candidates_all_fail_has_no_manner_and_leaves_no_empty_panel():
    figure = draw_correction_leakage(leakage().head(1))
    assert [note.text for note in figure.layout.annotations] == [LEAKAGE_PANELS["share"][0]]
    assert figure.layout.xaxis.domain == (0, 1)
    assert [trace.showlegend for trace in figure.data] == [True]
    both = draw_correction_leakage(leakage())
    assert [trace.showlegend for trace in both.data] == [True, False]


def test_attack_success_of_every_judge_reaches_the_page_and_stays_away_without_attacks(page):
    assert data_scripts(page)[-1]["data"] == json.loads(draw_attacks(attack_success()).to_json())["data"]
    without = render_report(results(evaluation_table=evaluation()))
    assert "No attack was run" in part(without, "attacks")
    assert len(data_scripts(without)) == 6


def test_the_win_rate_matrix_has_each_model_against_each_other_one_with_interval_and_counts(page):
    shown = " ".join(part(page, "win-rates").split())
    figures = win_rates()["groups"]["regulated"]["win_rates"]["after"]["before"]
    assert "(judge: chat &lt;m&gt;)" in shown
    counts = f"{figures['wins']} wins, {figures['ties']} ties, {figures['losses']} losses"
    bounds = " to ".join(f"{100 * figures[end]:.1f} %" for end in ("low", "high"))
    assert f"after {100 * figures['win_rate']:.1f} % {bounds} {counts} –" in shown
    assert "The answer shown first won" in shown
    assert "comparisons had another winner in the other order" in shown


def test_without_comparisons_the_page_says_why():
    report = win_rates() | {"comparisons": 0, "groups": {}, "note": "Nobody is to compare the answers."}
    assert "Nobody is to compare the answers." in part(render_report(results(win_rates=report)), "win-rates")
    assert "Answers were not compared." in part(render_report(results(win_rates=None)), "win-rates")


def test_a_failed_gate_says_why():
    gate = {"passed": False, "reasons": ["Over-refusal rose to 31 %, the limit is 10 %."], "checks": []}
    page = render_report(results(gate_report=gate))
    assert "The gate did not pass" in page
    assert gate["reasons"][0] in page


def test_a_page_of_nothing_says_of_each_section_why_it_is_empty():
    page = render_report(RunResults(title="Nothing", missing={"responses": "This data set has no prompts."}))
    assert page.count('class="absent"') >= 13
    assert "This data set has no prompts." in page
    assert data_scripts(page) == []


def test_an_oracle_without_truth_is_said_to_be_unmeasured():
    report = {"oracle": "rules", "n": 40, "unscored": 0, "accuracy": None, "interval": None}
    assert "The data carries no truth" in render_report(results(oracle_report=report))


def test_the_terminal_table_is_aligned_and_plain():
    text = render_summary_table(summary(), evaluation())
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    table = [line for line in lines if re.match(r"agreement|over-refusal|capability", line)]
    assert len({len(line) for line in table}) == 1
    assert text.isascii()
    assert "[" not in text
    assert re.search(r"^capability +62\.0 % +60\.0 % +-2\.0 +-9\.0 to \+5\.0 +100$", text, re.MULTILINE)
    assert re.search(r"^agreement, money \(rules\)", text, re.MULTILINE)
    assert "realigned-smollm2 version 3" in text
    assert re.search(r"^gate +passed$", text, re.MULTILINE)


def test_the_terminal_table_wraps_long_reasons_and_says_what_was_not_measured():
    summary_of_nothing = {
        "agreement": None,
        "gate": {"passed": False, "reasons": ["word " * 60]},
        "model": None,
    }
    text = render_summary_table(summary_of_nothing, pd.DataFrame())
    assert max(map(len, text.splitlines())) <= 100
    assert "agreement (not measured)" in text
    assert "FAILED" in text
    assert "not registered" in text


def test_what_the_pipeline_hands_to_the_page_are_fields_of_its_results():
    names = {field.name for field in fields(RunResults)}
    assert set(REPORTED) <= names
    assert names - set(REPORTED) == {"title", "subtitle", "summary", "responses", "manifests", "missing"}
