"""Whether a model aligned to the old labels prefers them: by hand, by counting, and on tiny models."""

import logging

import numpy as np
import pandas as pd
import pytest
from made_up_pairs import make_pairs
from tiny_models import PARAMETERS, save_model

from realignment.evaluation.old_labels import log_verdict, tabulate_old_labels
from realignment.evaluation.table import COLUMNS
from realignment.pipelines.align import nodes

SCORE_COLUMNS = ["pair_id", "prompt", "response", "tokens", "logprob", "reference_logprob", "kl"]


def scores_of(rows, prompts=None):
    """Rows (tokens, after, before) of chosen, then of rejected, for each pair."""
    table = []
    for number, (chosen, rejected) in enumerate(rows):
        prompt = prompts[number] if prompts else f"Prompt {number}?"
        table += [
            (f"p{number}", prompt, "chosen", *chosen, 0.1),
            (f"p{number}", prompt, "rejected", *rejected, 0.1),
        ]
    return pd.DataFrame(table, columns=SCORE_COLUMNS)


def rows_of(scores, seed=0):
    table = tabulate_old_labels(scores, np.random.default_rng(seed))
    assert list(table.columns) == list(COLUMNS)
    return {row["metric"]: row for row in table.to_dict("records")}


def random_pairs(n, seed, shift=0.0):
    source = np.random.default_rng(seed)
    pairs = []
    for _ in range(n):
        tokens = source.integers(1, 9, size=2)
        before = -source.exponential(20, size=2)
        after = before + source.normal(size=2) + [shift, 0.0]
        pairs.append(tuple((int(tokens[i]), float(after[i]), float(before[i])) for i in (0, 1)))
    return pairs


@pytest.mark.parametrize("seed", range(3))
def test_every_figure_is_that_of_counting_pair_by_pair(seed):
    pairs = random_pairs(25, seed, shift=1.0)
    rows = rows_of(scores_of(pairs).sample(frac=1, random_state=seed))
    n = len(pairs)
    expected = {name: [0.0, 0.0] for name in rows}
    for (tokens_w, after_w, before_w), (tokens_l, after_l, before_l) in pairs:
        ratio_w, ratio_l = after_w - before_w, after_l - before_l
        for side, (win, loss) in enumerate([(before_w, before_l), (after_w, after_l)]):
            expected["preference_accuracy"][side] += (win / tokens_w > loss / tokens_l) / n
            expected["preference_accuracy_summed"][side] += (win > loss) / n
            expected["margin"][side] += (win / tokens_w - loss / tokens_l) / n
        expected["implicit_accuracy"][0] += 0.5 / n
        expected["implicit_accuracy"][1] += (ratio_w > ratio_l) / n
        expected["implicit_margin"][1] += (ratio_w - ratio_l) / n
        expected["logratio_chosen"][1] += ratio_w / n
        expected["logratio_rejected"][1] += ratio_l / n
    for metric, (before, after) in expected.items():
        row = rows[metric]
        assert (row["group"], row["n"]) == ("old_labels", n)
        assert row["before"] == pytest.approx(before), metric
        assert row["after"] == pytest.approx(after), metric
        assert row["difference"] == pytest.approx(after - before), metric
        assert row["after_low"] <= row["after"] <= row["after_high"], metric
        assert row["difference_low"] <= row["difference"] <= row["difference_high"], metric
    assert len(rows) == 7


def test_where_all_pairs_are_right_the_interval_still_has_a_width():
    row = rows_of(scores_of(random_pairs(20, 0, shift=50.0)))["implicit_accuracy"]
    # Wilson's interval of 20 of 20.
    assert (row["after"], row["after_high"]) == (1, 1)
    assert row["after_low"] == pytest.approx(20 / (20 + 1.96**2), abs=1e-4)
    assert row["difference_low"] == pytest.approx(row["after_low"] - 0.5)
    assert row["p_value"] < 0.001


def test_a_model_that_has_learnt_nothing_is_at_one_half():
    rows = rows_of(scores_of([((3, -5.0, -5.0), (4, -9.0, -9.0))] * 6))
    accuracy = rows["implicit_accuracy"]
    assert (accuracy["before"], accuracy["after"], accuracy["difference"]) == (0.5, 0.5, 0)
    assert np.isnan(accuracy["p_value"])
    assert rows["implicit_margin"]["after"] == 0


def test_pairs_of_one_prompt_are_one_item():
    pairs = random_pairs(30, 1, shift=0.5)
    apart = rows_of(scores_of(pairs * 2))["implicit_accuracy"]
    prompts = [f"Prompt {number % 30}?" for number in range(60)]
    together = rows_of(scores_of(pairs * 2, prompts))["implicit_accuracy"]
    assert together["test"] == "cluster sign flip"
    assert together["after"] == apart["after"]
    assert together["after_high"] - together["after_low"] > 1.2 * (apart["after_high"] - apart["after_low"])


def test_no_held_out_pairs_are_no_rows(caplog):
    empty = pd.DataFrame(columns=SCORE_COLUMNS)
    assert rows_of(empty) == {}
    with caplog.at_level(logging.INFO):
        log_verdict(tabulate_old_labels(empty, np.random.default_rng(0)))
    assert "not measured" in caplog.text


@pytest.mark.parametrize(
    ("shift", "level", "words"),
    [(5.0, logging.INFO, "it has learnt the old labels"), (0.0, logging.WARNING, "no old policy to leave")],
)
def test_the_log_says_whether_there_is_an_old_policy_to_leave(caplog, shift, level, words):
    with caplog.at_level(logging.INFO):
        log_verdict(tabulate_old_labels(scores_of(random_pairs(30, 0, shift)), np.random.default_rng(0)))
    (record,) = caplog.records
    assert record.levelno == level
    assert words in record.message
    assert "of 30 held-out pairs" in record.message


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [save_model(folder / str(seed), seed=seed) for seed in (1, 2)]


def run_nodes(pairs, before, after):
    align = nodes.AlignParameters(
        registered_model="m", learning_rate=1.0, epochs=1.0, lora=None, max_length=64
    )
    evaluation = nodes.EvaluationParameters.model_validate({"capability": {"questions": None}})
    scores = nodes.score_old_labels(pairs, {"path": before}, after, PARAMETERS, align, evaluation)
    assert list(scores.columns) == SCORE_COLUMNS
    return scores, {row["metric"]: row for row in nodes.tabulate_alignment(scores, 0).to_dict("records")}


PAIRS = make_pairs({}, {}, {"chosen": "a longer response, chosen"}, {"correction": "not scored"})


def test_the_aligned_model_is_after_and_the_base_model_before(paths):
    scores, forth = run_nodes(PAIRS, *paths)
    assert scores["response"].tolist() == ["chosen", "rejected"] * 4
    _, back = run_nodes(PAIRS, *paths[::-1])
    assert forth["margin"]["after"] == pytest.approx(back["margin"]["before"], rel=1e-4)
    assert forth["implicit_margin"]["after"] == pytest.approx(-back["implicit_margin"]["after"], rel=1e-4)
    assert forth["implicit_accuracy"]["after"] == pytest.approx(1 - back["implicit_accuracy"]["after"])


def test_the_same_model_twice_has_learnt_nothing(paths):
    _, rows = run_nodes(PAIRS, paths[0], paths[0])
    assert rows["implicit_accuracy"]["after"] == 0.5
    assert rows["preference_accuracy"]["difference"] == 0


def test_without_held_out_pairs_the_nodes_write_an_empty_table(paths):
    scores, rows = run_nodes(PAIRS.iloc[:0], *paths)
    assert len(scores) == 0
    assert rows == {}
