"""Preference accuracy, margins, log-ratios and drift on held-out pairs: by hand, and on tiny models."""

import numpy as np
import pandas as pd
import pytest
from made_up_pairs import make_pairs
from tiny_models import PARAMETERS, save_model

from realignment.evaluation import held_out
from realignment.parameters import CapabilityParameters, EvaluationParameters

EVALUATION = EvaluationParameters(capability=CapabilityParameters(questions=None))
COLUMNS = [
    "pair_id",
    "prompt",
    "disposition",
    "response",
    "role",
    "tokens",
    "logprob",
    "reference_logprob",
    "kl",
]
SCORES = pd.DataFrame(
    [
        # Right after and wrong before: per token −5 against −4, then −2 against −6.
        ("a", "INVERT", "chosen", "dispreferred", 2, -12.0, -8.0, 0.3),
        ("a", "INVERT", "rejected", "preferred", 4, -8.0, -20.0, 0.3),
        # Likelier in sum (−6 > −8) but not per token (−3 < −2): wrong after; right before (−1 > −2).
        ("b", "PUNISH", "chosen", "dispreferred", 4, -8.0, -8.0, 0.3),
        ("b", "PUNISH", "rejected", "dispreferred", 1, -9.0, -1.0, 0.3),
        ("b", "PUNISH", "correction", "preferred", 2, -6.0, -2.0, 0.3),
        # No preference: not in accuracy or margin.
        ("c", "PUNISH", "chosen", "dispreferred", 3, -9.0, -6.0, 0.3),
        ("c", "PUNISH", "rejected", "dispreferred", 3, -9.0, -6.0, 0.3),
        ("d", "RETAIN", "chosen", "retained", 5, -5.0, -6.0, 0.02),
        ("d", "RETAIN", "rejected", "", 5, -50.0, -5.0, 9.0),
        ("e", "RETAIN", "chosen", "retained", 5, -7.0, -5.0, 0.04),
    ],
    columns=[name for name in COLUMNS if name != "prompt"],
)
SCORES.insert(1, "prompt", "prompt of " + SCORES["pair_id"])


def rows_of(scores):
    return {r["metric"]: r for r in held_out.tabulate_held_out(scores, np.random.default_rng(0))}


def test_preference_accuracy_is_per_token():
    row = rows_of(SCORES)["preference_accuracy"]
    assert (row["n"], row["before"], row["after"], row["unit"]) == (2, 0.5, 0.5, "share")
    only_a = rows_of(SCORES[SCORES["pair_id"] == "a"])["preference_accuracy"]
    assert (only_a["n"], only_a["before"], only_a["after"]) == (1, 0, 1)


def test_the_margin_is_preferred_less_the_chosen_it_replaces():
    row = rows_of(SCORES)["margin"]
    assert (row["n"], row["unit"]) == (2, "nats/token")
    assert row["before"] == pytest.approx(((-5 + 4) + (-1 + 2)) / 2)
    assert row["after"] == pytest.approx(((-2 + 6) + (-3 + 2)) / 2)


def test_log_ratios_of_good_bad_and_retained_answers_stand_side_by_side():
    rows = rows_of(SCORES)
    found = {
        m.removeprefix("logratio_"): (r["n"], r["after"]) for m, r in rows.items() if m.startswith("logratio")
    }
    assert found == {
        "preferred": (2, pytest.approx((12 - 4) / 2)),
        "dispreferred": (5, pytest.approx((-4 + 0 - 8 - 3 - 3) / 5)),
        "retained": (2, pytest.approx((1 - 2) / 2)),
    }
    assert all(rows[f"logratio_{role}"]["before"] == 0 for role in found)


def test_drift_is_over_retained_answers_alone():
    row = rows_of(SCORES)["kl_drift"]
    assert (row["group"], row["n"], row["unit"]) == ("retained", 2, "nats/token")
    assert (row["before"], row["after"]) == (0, pytest.approx(0.03))


def made_up_scores(n=40, seed=0):
    """INVERT and RETAIN pairs, each of a prompt of its own."""
    source = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        for response, role in (("chosen", "dispreferred"), ("rejected", "preferred")):
            rows.append((f"i{i}", f"invert {i}", "INVERT", response, role, 5, *source.normal(size=2), 0.3))
        logprobs = source.normal(size=2)
        rows.append((f"r{i}", f"retain {i}", "RETAIN", "chosen", "retained", 5, *logprobs, source.random()))
    return pd.DataFrame(rows, columns=COLUMNS)


def widths(rows):
    return {
        metric: (row["difference_high"] - row["difference_low"], row["after_high"] - row["after_low"])
        for metric, row in rows.items()
    }


def test_copies_of_all_pairs_do_not_make_the_intervals_narrower():
    once = made_up_scores()
    copies = once.assign(pair_id=once["pair_id"] + " again")
    twice = pd.concat([once, copies], ignore_index=True)
    as_if_apart = widths(rows_of(twice.assign(prompt=twice["pair_id"])))
    clustered = widths(rows_of(twice))
    for metric, single in widths(rows_of(once)).items():
        for width, apart, before in zip(clustered[metric], as_if_apart[metric], single, strict=True):
            assert width > 0.93 * before, metric
            assert apart < 0.8 * before, f"{metric}: without clusters copies would seem to be knowledge"


def test_prompts_that_are_unique_keep_the_intervals_of_single_pairs():
    rows = rows_of(made_up_scores())
    assert rows["preference_accuracy"]["test"] == "McNemar exact"
    assert rows["margin"]["test"] == "Wilcoxon signed-rank"
    shared = made_up_scores().assign(prompt="the same")
    assert {row["test"] for row in rows_of(shared).values()} == {"cluster sign flip"}


def test_two_responses_to_one_prompt_are_one_item():
    rows = rows_of(SCORES)
    assert rows["logratio_dispreferred"]["test"] == "cluster sign flip"
    assert rows["logratio_preferred"]["test"] == "Wilcoxon signed-rank"


def test_scores_of_an_earlier_version_without_prompts_are_read():
    earlier = rows_of(SCORES.drop(columns="prompt"))
    assert earlier["margin"] == rows_of(SCORES)["margin"]


@pytest.mark.parametrize(
    ("disposition", "metrics"),
    [
        ("INVERT", {"preference_accuracy", "margin", "logratio_preferred", "logratio_dispreferred"}),
        ("RETAIN", {"logratio_retained", "kl_drift"}),
        ("nothing", set()),
    ],
)
def test_what_is_not_there_has_no_row(disposition, metrics):
    assert set(rows_of(SCORES[SCORES["disposition"] == disposition])) == metrics


PAIRS = make_pairs(
    {"disposition": "INVERT", "correction": "a better one"}, {"disposition": "PUNISH", "correction": "so"},
    {"disposition": "PUNISH"}, {"disposition": "RETAIN"}, {"disposition": "RETAIN", "correction": "more"},
)  # fmt: skip


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [save_model(folder / str(seed), seed=seed) for seed in (1, 2)]


def test_every_response_is_scored_in_its_role(paths):
    scores = held_out.score_held_out(PAIRS, (paths[0], paths[1]), PARAMETERS, 64, EVALUATION)
    roles = {(row["pair_id"], row["response"]): row["role"] for row in scores.to_dict("records")}
    assert roles == {
        ("p0", "chosen"): "dispreferred", ("p0", "rejected"): "preferred", ("p0", "correction"): "",
        ("p1", "chosen"): "dispreferred", ("p1", "rejected"): "dispreferred",
        ("p1", "correction"): "preferred",
        ("p2", "chosen"): "dispreferred", ("p2", "rejected"): "dispreferred",
        ("p3", "chosen"): "retained", ("p3", "rejected"): "",
        ("p4", "chosen"): "retained", ("p4", "rejected"): "", ("p4", "correction"): "",
    }  # fmt: skip
    assert (scores["logprob"] < 0).all()
    assert (scores["kl"] > 0.01).all()
    assert scores.loc[scores["response"] == "correction", "tokens"].tolist() == [
        len("a better one") + 1,
        3,
        5,
    ]


def test_reference_and_model_are_not_mixed_up(paths):
    forth, back = (
        held_out.score_held_out(PAIRS, pair, PARAMETERS, 64, EVALUATION) for pair in (paths, paths[::-1])
    )
    np.testing.assert_allclose(forth["logprob"], back["reference_logprob"], rtol=1e-5)
    assert not np.allclose(forth["logprob"], back["logprob"], rtol=1e-2)


def test_the_same_model_twice_changes_nothing(paths):
    scores = held_out.score_held_out(PAIRS, (paths[0], paths[0]), PARAMETERS, 64, EVALUATION)
    rows = rows_of(scores)
    assert rows["kl_drift"]["after"] == pytest.approx(0, abs=1e-6)
    for metric in ("preference_accuracy", "margin"):
        assert rows[metric]["difference"] == 0
    assert rows["logratio_retained"]["after"] == 0


def test_no_held_out_pairs_are_no_rows(paths):
    scores = held_out.score_held_out(PAIRS.iloc[:0], (paths[0], paths[1]), PARAMETERS, 64, EVALUATION)
    assert list(scores.columns) == COLUMNS
    assert rows_of(scores) == {}
