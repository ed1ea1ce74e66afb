"""Answers are compared blindly in both orders; the figures are those of slow, plain computations."""

import json
import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
from command_line import saved
from servers import Script, chat_settings, completion, exchange_of, scripted

from realignment.evaluation.table import COLUMNS, tabulate
from realignment.evaluation.win_rates.bradley_terry import fit_strengths
from realignment.evaluation.win_rates.comparators import Better, Preference, RulesComparator
from realignment.evaluation.win_rates.comparing import (
    COMPARISON_COLUMNS,
    combine_orders,
    compare_answers,
    list_positions,
    list_voted_positions,
    tally_votes,
)
from realignment.evaluation.win_rates.figures import (
    measure_win_rates,
    report_win_rates,
    sum_wins,
    win_rate_rows,
)
from realignment.evaluation.win_rates.model_comparators import ChatComparator, ModelComparator
from realignment.policy import Policy, parse_policy
from realignment.statistics import wilson_interval

RULES = [{"id": "no-sell", "description": "No order.", "check": {"kind": "forbidden", "patterns": ["sell"]}}]
POLICY = parse_policy({"name": "advice", "version": "2", "text": "Be careful.", "rules": RULES}, "test")
FIRST, SECOND, TIE = Better.FIRST, Better.SECOND, Better.TIE


@dataclass(frozen=True)
class Longer:
    """Prefers the longer answer; ties where both are as long. A judge that is there, and in both orders."""

    symmetric: bool = False
    name: str = "longer"
    asked: list = field(default_factory=list)

    def __call__(self, pairs, policy):
        self.asked.extend(pairs)
        return [Preference(self.choose(len(pair.first), len(pair.second))) for pair in pairs]

    def choose(self, first, second):
        if first == second:
            return TIE
        return FIRST if first > second else SECOND


def make_answers(**columns):
    """Answers of models to made-up prompts: every other one is regulated."""
    n = len(next(iter(columns.values())))
    kinds = ["regulated" if number % 2 else "ordinary" for number in range(n)]
    table = pd.DataFrame(
        {"prompt_id": [f"p{i}" for i in range(n)], "prompt": [f"Prompt {i}?" for i in range(n)]}
    )
    return table.assign(domain=["law", None] * (n // 2) + ["law"] * (n % 2), kind=kinds, **columns)


def random_answers(n=40, models=("before", "after"), seed=0):
    rng = np.random.default_rng(seed)
    # Models differ in the length of their answers; some are equal.
    return make_answers(
        **{model: ["x" * int(k) for k in rng.integers(1, 5 + i, n)] for i, model in enumerate(models)}
    )


def report(comparisons, **settings):
    positions = list_positions(comparisons)
    return report_win_rates(
        comparisons, **({"judge": "longer", "positions": positions, "resamples": 400, "seed": 3} | settings)
    )


# --- the protocol


def test_both_orders_are_asked_and_equal_answers_are_not():
    answers = make_answers(before=["a", "same", "ccc"], after=["bb", "same", "d"])
    judge = Longer()
    comparisons = compare_answers(answers, ("before", "after"), judge, POLICY)
    asked = [(pair.prompt, pair.first, pair.second, pair.domain) for pair in judge.asked]
    assert asked == [
        ("Prompt 0?", "a", "bb", "law"), ("Prompt 2?", "ccc", "d", "law"),
        ("Prompt 0?", "bb", "a", "law"), ("Prompt 2?", "d", "ccc", "law"),
    ]  # fmt: skip
    assert list(comparisons.columns) == list(COMPARISON_COLUMNS)
    assert comparisons["score"].tolist() == [0.0, 0.5, 1.0]
    assert comparisons["forward"].tolist() == comparisons["backward"].tolist() == ["second", "tie", "first"]
    assert comparisons["reason"][1] == "both answers are equal"


def test_a_judge_that_is_symmetric_is_asked_once():
    judge = Longer(symmetric=True)
    comparisons = compare_answers(random_answers(), ("before", "after"), judge, POLICY)
    twice = compare_answers(random_answers(), ("before", "after"), Longer(), POLICY)
    pd.testing.assert_frame_equal(comparisons, twice)
    assert len(judge.asked) == (random_answers()["before"] != random_answers()["after"]).sum()


@pytest.mark.parametrize(
    ("forward", "backward", "score"),
    [
        (FIRST, FIRST, 1.0), (SECOND, SECOND, 0.0), (TIE, TIE, 0.5), (FIRST, SECOND, 0.5),
        (FIRST, TIE, 0.5), (TIE, SECOND, 0.5), (None, FIRST, math.nan), (TIE, None, math.nan),
    ],
)  # fmt: skip
def test_two_orders_make_one_score_and_disagreement_is_a_tie(forward, backward, score):
    np.testing.assert_equal(combine_orders(forward, backward), score)


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


# --- figures


def naive_win_rate(answers, first, second):
    """Wins and half the ties over all prompts, answer by answer."""
    score = 0.0
    for a, b in zip(answers[first], answers[second], strict=True):
        score += 1.0 if len(a) > len(b) else 0.5 if len(a) == len(b) else 0.0
    return score / len(answers)


MODELS = ("x", "y", "z")


@pytest.fixture(scope="module")
def three():
    answers = random_answers(60, MODELS)
    return answers, compare_answers(answers, MODELS, Longer(), POLICY)


def test_the_matrix_is_that_of_counting_answer_by_answer(three):
    answers, comparisons = three
    matrix = report(comparisons)["groups"]["overall"]["win_rates"]
    for first in MODELS:
        for second in set(MODELS) - {first}:
            figures = matrix[first][second]
            assert figures["win_rate"] == pytest.approx(naive_win_rate(answers, first, second), abs=1e-12)
            assert figures["wins"] + figures["ties"] + figures["losses"] == figures["n"] == 60
            assert figures["low"] < figures["win_rate"] < figures["high"]


def test_the_matrix_is_its_own_mirror(three):
    _, comparisons = three
    for group in report(comparisons)["groups"].values():
        for first in MODELS:
            for second in set(MODELS) - {first}:
                one, other = group["win_rates"][first][second], group["win_rates"][second][first]
                assert one["win_rate"] + other["win_rate"] == pytest.approx(1)
                assert one["low"] + other["high"] == pytest.approx(1)
                assert (one["wins"], one["p_value"]) == (other["losses"], other["p_value"])


def test_other_names_and_another_order_of_models_mirror_the_figures(three):
    answers, comparisons = three
    swapped = compare_answers(answers, MODELS[::-1], Longer(), POLICY)
    one, other = (report(table)["groups"]["regulated"] for table in (comparisons, swapped))
    for first in MODELS:
        assert other["strengths"][first] == pytest.approx(one["strengths"][first], abs=1e-6)
        for second in set(MODELS) - {first}:
            assert other["win_rates"][first][second] == pytest.approx(one["win_rates"][first][second])


def test_the_order_of_prompts_does_not_matter(three):
    answers, comparisons = three
    shuffled = compare_answers(answers.sample(frac=1, random_state=1), MODELS, Longer(), POLICY)
    one, other = report(comparisons), report(shuffled)
    assert other["position_bias"] == pytest.approx(one["position_bias"])
    for first, second in (("x", "y"), ("y", "z")):
        figures = [r["groups"]["overall"]["win_rates"][first][second] for r in (one, other)]
        assert figures[0] == pytest.approx(figures[1])


def test_equal_models_win_half():
    answers = random_answers(30).assign(copy=lambda table: table["before"])
    found = report(compare_answers(answers, ("before", "copy"), Longer(), POLICY))
    figures = found["groups"]["overall"]["win_rates"]["copy"]["before"]
    assert (figures["win_rate"], figures["ties"], figures["p_value"]) == (0.5, 30, 1.0)
    assert figures["low"] == pytest.approx(1 - figures["high"])
    # What 30 prompts would not show: up to 11 % of prompts on which one of the two wins.
    assert figures["high"] == pytest.approx(0.5 + wilson_interval(0, 30).high / 2)
    strengths = found["groups"]["overall"]["strengths"]
    assert [strengths[model]["rank"] for model in ("before", "copy")] == [1, 1]


def test_a_model_that_always_wins_has_the_interval_of_wilson_and_no_invented_bound_of_its_strength():
    answers = make_answers(before=["a"] * 20, after=["bb"] * 20)
    group = report(compare_answers(answers, ("before", "after"), Longer(), POLICY))["groups"]["overall"]
    figures = group["win_rates"]["after"]["before"]
    assert (figures["win_rate"], figures["high"]) == (1.0, 1.0)
    assert figures["low"] == pytest.approx(wilson_interval(20, 20).low)
    assert not group["strengths_bounded"]
    assert group["strengths"]["after"]["low"] is None
    assert group["strengths"]["after"]["rank"] == 1
    assert figures["p_value"] == pytest.approx(2 / 2**20)


def test_the_intervals_are_those_of_a_plain_bootstrap_over_prompts(three):
    _, comparisons = three
    part = comparisons[comparisons["first_model"].eq("x") & comparisons["second_model"].eq("y")]
    rng = np.random.default_rng(11)
    scores = part["score"].to_numpy()  # one per prompt
    means = [np.mean([scores[i] for i in rng.integers(0, 60, 60)]) for _ in range(4000)]
    expected = np.percentile(means, [2.5, 97.5])
    figures = report(part, resamples=4000)["groups"]["overall"]["win_rates"]["x"]["y"]
    assert [figures["low"], figures["high"]] == pytest.approx(expected, abs=0.012)


def test_answers_that_share_a_prompt_are_one_cluster():
    """Each prompt answered four times: as many prompts as before, so the interval must not shrink."""
    once = compare_answers(random_answers(30), ("before", "after"), Longer(), POLICY)
    often = pd.concat([once] * 4, ignore_index=True)
    alone, repeated = (
        report(table)["groups"]["overall"]["win_rates"]["after"]["before"] for table in (once, often)
    )
    assert repeated["n"] == 4 * alone["n"]
    assert repeated["prompts"] == alone["prompts"] == 30
    for name in ("win_rate", "low", "high", "p_value"):
        assert repeated[name] == pytest.approx(alone[name])


def test_the_interval_covers_the_true_win_rate_as_often_as_it_says():
    rng = np.random.default_rng(5)
    covered = 0
    for seed in range(100):
        score = rng.choice([0.0, 0.5, 1.0], size=60, p=[0.25, 0.3, 0.45])  # the true win rate is 0.6
        table = pd.DataFrame({"prompt": [f"{i}" for i in range(60)], "kind": "held_out", "score": score})
        table = table.assign(first_model="x", second_model="y", forward="first", backward="first", reason="")
        figures = report(table, positions=None, resamples=200, seed=seed)["groups"]["overall"]
        interval = figures["win_rates"]["x"]["y"]
        covered += interval["low"] <= 0.6 <= interval["high"]
    assert 0.88 <= covered / 100 <= 0.99


def test_strengths_are_those_of_the_summed_wins(three):
    _, comparisons = three
    strengths = report(comparisons)["groups"]["overall"]["strengths"]
    wins = sum_wins(comparisons, MODELS)
    assert wins.sum() == len(comparisons)
    expected = fit_strengths(wins.sum(0))
    assert [strengths[model]["strength"] for model in MODELS] == pytest.approx(expected.tolist())
    assert [strengths[model]["rank"] for model in MODELS] == [3, 2, 1]
    assert all(figures["low"] < figures["strength"] < figures["high"] for figures in strengths.values())


def test_groups_are_the_kinds_of_prompts_and_all_together(three):
    answers, comparisons = three
    groups = report(comparisons)["groups"]
    assert set(groups) == {"overall", "regulated", "kind:ordinary"}
    regulated = answers[answers["kind"] == "regulated"]
    figures = groups["regulated"]["win_rates"]["z"]["x"]
    assert figures["n"] == len(regulated)
    assert figures["win_rate"] == pytest.approx(naive_win_rate(regulated, "z", "x"))


def test_a_prompt_that_one_model_has_not_answered_is_left_out():
    answers = make_answers(before=["a", None, "c"], after=["bb", "bb", None])
    comparisons = compare_answers(answers, ("before", "after"), Longer(), POLICY)
    assert comparisons["prompt"].tolist() == ["Prompt 0?"]


# --- the report where there is nothing to compare


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


# --- the evaluation table


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


# --- people's votes


def make_key(rows):
    columns = ["task_id", "prompt", "kind", "response_a", "response_b", "model_a", "model_b"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(prompt_id=table["prompt"], domain=None)


KEY = make_key(
    [
        ("t1", "p1", "regulated", "a", "b", "before", "after"),
        ("t2", "p2", "regulated", "a", "b", "after", "before"),
        ("t3", "p3", "ordinary", "a", "b", "before", "after"),
        ("t4", "p4", "ordinary", "same", "same", "before", "after"),
        ("t5", "p5", "ordinary", "a", "b", "before", "after"),
    ]
)
VOTES = pd.DataFrame(
    [
        ("t1", "b", "ann"), ("t1", "b", "bo"), ("t1", "tie", "cy"),
        ("t2", "a", "ann"), ("t2", "b", "bo"),
        ("t3", "a", "ann"),
    ],
    columns=["task_id", "verdict", "annotator"],
)  # fmt: skip


def test_the_majority_of_people_decides_and_what_nobody_saw_is_not_guessed():
    table = tally_votes(VOTES, KEY)
    np.testing.assert_equal(table["score"].to_numpy(), [0.0, 0.5, 1.0, 0.5, math.nan])
    assert table["reason"].tolist() == ["", "", "", "", "nobody has voted"]
    found = report_win_rates(
        table, judge="people", positions=list_voted_positions(VOTES, KEY), resamples=200, seed=0
    )
    figures = found["groups"]["overall"]["win_rates"]["after"]["before"]
    assert (figures["n"], figures["wins"], figures["ties"], figures["losses"]) == (4, 1, 2, 1)
    assert (figures["win_rate"], found["unscored"]) == (0.5, 1)
    assert found["order_disagreements"] is None  # people see one order
    assert found["position_bias"]["share"] == pytest.approx(2 / 5)


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
