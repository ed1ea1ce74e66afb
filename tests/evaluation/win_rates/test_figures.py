"""The report of comparisons: who judged, what is unscored, by the command and in the evaluation table."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from command_line import saved
from compared_answers import POLICY, make_answers, random_answers
from servers import Script, chat_settings, completion, exchange_of, scripted

from realignment.evaluation.table import COLUMNS, tabulate
from realignment.evaluation.win_rates.comparators import RulesComparator
from realignment.evaluation.win_rates.comparing import COMPARISON_COLUMNS
from realignment.evaluation.win_rates.figures import measure_win_rates, win_rate_rows
from realignment.evaluation.win_rates.model_comparators import ChatComparator, ModelComparator
from realignment.policy import Policy
from realignment.statistics import wilson_interval


def serve(answer):
    return scripted(Script(answer))


def test_a_server_that_always_prefers_the_first_answer_gives_ties_and_its_bias_is_reported():
    reply = completion(json.dumps({"reason": "", "better": "A"}))
    answers = random_answers(10)
    with serve(lambda body, attempt: reply) as url:
        judge = ModelComparator(ChatComparator(chat_settings(url)))
        _, found = measure_win_rates(answers, ("before", "after"), judge, POLICY, resamples=200, seed=0)
    different = int((answers["before"] != answers["after"]).sum())
    assert found["order_disagreements"] == different > 5
    bias = found["position_bias"]
    assert (bias["share"], bias["n"], bias["high"]) == (1.0, 2 * different, 1.0)
    assert bias["low"] == pytest.approx(wilson_interval(different, different).low)
    figures = found["groups"]["overall"]["win_rates"]["after"]["before"]
    assert (figures["win_rate"], figures["ties"], figures["wins"]) == (0.5, 10, 0)


def test_what_a_server_says_unreadably_in_one_order_is_unscored_and_counted():
    def answer(body, attempt):
        asked = exchange_of(body)
        if asked["prompt"] == "Prompt 0?" and asked["answer_a"] == "bb":
            return completion("Both are fine.")
        better = "A" if len(asked["answer_a"]) > len(asked["answer_b"]) else "B"
        return completion(json.dumps({"reason": "", "better": better}))

    answers = make_answers(before=["a", "a"], after=["bb", "bb"])
    with serve(answer) as url:
        judge = ModelComparator(ChatComparator(chat_settings(url)))
        comparisons, found = measure_win_rates(
            answers, ("before", "after"), judge, POLICY, resamples=200, seed=0
        )
    np.testing.assert_equal(comparisons["score"].to_numpy(), [math.nan, 0.0])
    assert (found["comparisons"], found["unscored"], found["prompts"]) == (1, 1, 1)
    (unscored,) = found["unscored_reasons"]
    assert unscored["reason"].startswith("unreadable reply")
    assert unscored["n"] == 1
    assert found["judge"] == "chat m"


@pytest.mark.parametrize(
    ("judge", "answers", "policy", "note"),
    [
        (None, random_answers(3), POLICY, "judge: null"),
        (RulesComparator(), random_answers(3), Policy(name="p", version="1", text="t"), "has no rules"),
        (RulesComparator(), random_answers(3).head(0), POLICY, "no answers"),
    ],
)
def test_where_nobody_compares_the_report_says_why_and_the_table_has_no_row(judge, answers, policy, note):
    comparisons, found = measure_win_rates(answers, ("before", "after"), judge, policy, resamples=200, seed=0)
    assert comparisons.empty
    assert list(comparisons.columns) == list(COMPARISON_COLUMNS)
    assert note in found["note"]
    assert found["groups"] == {}
    assert list(win_rate_rows(found)) == []


def test_the_evaluation_table_has_the_headlines_with_before_as_the_rest():
    answers = make_answers(
        before=["sell", "sell", "fine", "sell"], after=["hold", "wait", "good", "sell now"]
    )
    _, found = measure_win_rates(
        answers, ("before", "after"), RulesComparator(), POLICY, resamples=500, seed=0
    )
    scores = pd.DataFrame(
        [("d", "RETAIN", "chosen", "retained", 2, -3.0, -4.0, 0.1)],
        columns=[
            "pair_id", "disposition", "response", "role", "tokens", "logprob", "reference_logprob", "kl",
        ],
    )  # fmt: skip
    empty = pd.DataFrame()
    rng = np.random.default_rng(0)
    made = tabulate(empty, scores, empty, POLICY, POLICY, win_rates=found, rng=rng)
    assert list(made.columns) == list(COLUMNS)
    rows = {row["group"]: row for row in made[made["metric"] == "win_rate"].to_dict("records")}
    assert set(rows) == {"overall", "regulated"}
    overall = rows["overall"]
    assert (overall["metric"], overall["judge"], overall["unit"]) == ("win_rate", "rules", "share")
    assert (overall["n"], overall["after"], overall["before"]) == (4, 0.75, 0.25)
    assert overall["difference"] == 0.5
    assert overall["before_low"] == pytest.approx(1 - overall["after_high"])
    assert overall["difference_high"] == pytest.approx(2 * overall["after_high"] - 1)
    assert (overall["p_value"], overall["test"]) == (0.5, "sign, exact")  # 2 wins, no loss
    assert found["position_bias"] is None


# --- by the command


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of a run with answers: as if the stage `evaluation` had been there."""
    folder = tmp_path_factory.mktemp("win-rates") / "data"
    answers = make_answers(
        before=["You should sell.", "=Sell everything", "Ask him.", "Sell it"],
        after=["It depends.", "Wait a year.", "Ask him.", "Sell it now"],
    )
    answers = answers.assign(messages=None, origin=None, domain="money")
    place = folder / "07_model_output/answers.parquet/2026-01-01T00.00.00.000Z/answers.parquet"
    place.parent.mkdir(parents=True)
    answers.to_parquet(place)
    return folder


def test_the_command_compares_saved_answers_by_the_rules(kedro_in_process, data):
    done = kedro_in_process("--pipelines", "evaluation", "--tags", "win_rates", data_root=data)
    assert done.exit_code == 0, done.error
    found = json.loads(saved(data / "08_reporting/win_rates.json").read_text())
    assert (found["judge"], found["models"], found["prompts"]) == ("rules", ["before", "after"], 4)
    table = pd.read_parquet(saved(data / "07_model_output/comparisons.parquet"))
    assert list(table.columns) == list(COMPARISON_COLUMNS)
    assert table["score"].between(0, 1).all()


def test_people_vote_on_forms_without_the_models_names_and_the_figures_are_those_of_their_votes(
    kedro_in_process, data, tmp_path
):
    def run(pipeline, **params):
        return kedro_in_process("--pipelines", pipeline, data_root=data, **params)

    exported = run("win_rate_export")
    assert exported.exit_code == 0, exported.error
    form = saved(data / "08_reporting/win_rate_table.csv")
    text = form.read_text()
    assert "before" not in text
    assert "after" not in text
    table = pd.read_csv(form, dtype=str, keep_default_na=False)
    assert len(table) == 3  # the fourth prompt has two equal answers
    assert "'=Sell everything" in text  # escaped for spreadsheets
    said_by_after = {"It depends.", "Wait a year.", "Sell it now"}
    table["verdict"] = ["A" if text in said_by_after else "B" for text in table["response_a"]]
    people = tmp_path / "people"
    people.mkdir()
    table.to_csv(people / "ann.csv", index=False)
    table.assign(verdict=["tie", *table["verdict"][1:]]).to_csv(people / "bo.csv", index=False)
    imported = run("win_rate_import", votes=people)
    assert imported.exit_code == 0, imported.error
    found = json.loads(saved(data / "08_reporting/human_win_rates.json").read_text())
    figures = found["groups"]["overall"]["win_rates"]["after"]["before"]
    # Both prefer the model after on two prompts; one vote against a tie, and two equal answers, are ties.
    assert (figures["n"], figures["wins"], figures["ties"]) == (4, 2, 2)
    assert found["people"]["judged_by_two_or_more"] == 3
    assert -1 < found["people"]["alpha"] < 1
    votes = pd.read_parquet(saved(data / "07_model_output/human_votes.parquet"))
    assert set(votes["annotator"]) == {"ann", "bo"}

    refused = run("win_rate_import")
    assert refused.exit_code != 0
    assert "`--params votes=FILE`" in refused.error
    table.assign(verdict="C").to_csv(tmp_path / "wrong.csv", index=False)
    refused = run("win_rate_import", votes=tmp_path / "wrong.csv")
    assert refused.exit_code != 0
    assert "wrong.csv, row 2, verdict 'c': expected a, b, tie" in refused.error
