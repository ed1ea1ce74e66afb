"""What methods are compared on: nothing is shared between development, test and training."""

import numpy as np
import pandas as pd
import pytest
from made_up_pairs import make_pairs

from realignment.baselines.sets import build_set, draw_training_parts, turn_verdicts
from realignment.parameters import EvaluationParameters, GoldParameters, SetParameters
from realignment.records import DataError
from realignment.triage import decide_disposition

EVALUATION = EvaluationParameters(capability={"questions": None})
GOLD = GoldParameters(size=6)
NONE = pd.DataFrame(columns=["prompt_id", "prompt", "domain", "kind"])


def triaged(n=120):
    kinds = ["INVERT", "PUNISH", "RETAIN"]
    rows = [
        {
            "disposition": kinds[i % 3],
            "rules_broken": "" if i % 3 == 2 else "a",
            "rejected_verdict": i % 3 == 0,
        }
        | ({"correction": f"better {i}"} if i % 6 == 1 else {})
        for i in range(n)
    ]
    # Two pairs a prompt.
    return make_pairs(*rows).assign(prompt=[f"Question {i // 2}?" for i in range(n)])


def set_of(split, *, prompts="held_out", **options):
    options = {"training_pairs": 40, "held_out_pairs": None, "prompts_limit": None} | options
    parameters = SetParameters(split=split, prompts=prompts, **options)
    return build_set(triaged(), NONE, parameters, EVALUATION), parameters


def test_development_and_test_share_no_prompt_and_no_training_sees_either():
    development, _ = set_of("development")
    test, parameters = set_of("test")
    seen = [set(part["prompt"]) for part in (development.held_out, test.held_out)]
    assert seen[0].isdisjoint(seen[1])
    pd.testing.assert_frame_equal(development.pool, test.pool)
    assert set(test.pool["prompt"]).isdisjoint(seen[0] | seen[1])
    assert seen[0] | seen[1] | set(test.pool["prompt"]) == set(triaged()["prompt"])
    for seed in range(5):
        parts = draw_training_parts(test, parameters, GOLD, seed=seed)
        for part in parts:
            assert set(part["prompt"]) <= set(test.pool["prompt"])


def test_the_halves_have_the_dispositions_of_the_whole():
    for split in ("development", "test"):
        counts = set_of(split)[0].held_out.drop_duplicates("prompt")["disposition"].value_counts()
        assert counts.max() - counts.min() <= 3


def test_a_seed_draws_the_same_pairs_for_every_method():
    comparison, parameters = set_of("test")
    first, again, other = (draw_training_parts(comparison, parameters, GOLD, seed=seed) for seed in (1, 1, 2))
    for part, same in zip(first, again, strict=True):
        pd.testing.assert_frame_equal(part, same)
    assert set(first[1]["pair_id"]) != set(other[1]["pair_id"])
    gold, training = first
    assert len(gold) == 6
    assert set(gold["prompt"]).isdisjoint(training["prompt"])


def test_a_limit_keeps_each_dispositions_share():
    comparison, parameters = set_of("test", training_pairs=30)
    gold, training = draw_training_parts(comparison, parameters, GOLD, seed=0)
    counts = pd.concat([gold, training])["disposition"].value_counts()
    assert counts.max() - counts.min() <= 2
    held_out = set_of("test", held_out_pairs=6)[0].held_out
    assert len(held_out) == 6
    assert set(held_out["disposition"]) == {"INVERT", "PUNISH", "RETAIN"}


def test_the_prompts_are_those_of_held_out_pairs_those_of_the_file_or_none():
    comparison, _ = set_of("test")
    assert set(comparison.prompts["prompt"]) == set(comparison.held_out["prompt"])
    assert comparison.prompts["prompt"].is_unique
    assert set(comparison.prompts["kind"]) == {"regulated"}
    assert set_of("test", prompts="none")[0].prompts.empty
    file = pd.DataFrame(
        {
            "prompt_id": ["a", "b"],
            "prompt": ["Something else entirely?", "And a third matter, please"],
            "domain": ["money", "other"],
            "kind": ["regulated", "ordinary"],
            "split": ["development", "test"],
        }
    )
    parameters = SetParameters(split="test", prompts="file")
    assert build_set(triaged(), file, parameters, EVALUATION).prompts["prompt_id"].tolist() == ["b"]


def test_an_oracle_that_errs_turns_that_share_of_the_verdicts_and_measures_by_the_true_ones():
    pairs = triaged(3000).assign(chosen_verdict=lambda t: t["disposition"] == "RETAIN")
    turned = turn_verdicts(pairs, share=0.2, rng=np.random.default_rng(0))
    for column in ("chosen_verdict", "rejected_verdict"):
        share = (turned[column].astype(bool) != pairs[column].astype(bool)).mean()
        assert share == pytest.approx(0.2, abs=0.03)
    for row in turned.to_dict("records"):
        assert row["disposition"] == decide_disposition(row["chosen_verdict"], row["rejected_verdict"])
    noisy, clean = (set_of("test", label_noise=noise)[0] for noise in (0.3, 0.0))
    pd.testing.assert_frame_equal(noisy.held_out, clean.held_out)
    unchanged = turn_verdicts(pairs, share=0.0, rng=np.random.default_rng(0))
    assert unchanged["disposition"].tolist() == pairs["disposition"].tolist()


def test_too_small_a_share_is_refused():
    with pytest.raises(DataError, match=r"held out for the split `test`.*held_out_share"):
        set_of("test", held_out_share=0.001)
