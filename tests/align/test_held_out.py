"""Prompts that are kept from the training on the old labels."""

import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_pairs import make_pairs

from realignment.align.held_out import hold_out_prompts
from realignment.records import DataError


def pairs_of(n, per_prompt=1):
    return make_pairs(*({"prompt": f"Prompt {number // per_prompt}?"} for number in range(n)))


@settings(deadline=None)
@given(st.integers(5, 40), st.integers(1, 3), st.floats(0, 0.5), st.integers(0, 9))
def test_no_prompt_is_on_both_sides_and_no_pair_is_lost(n, per_prompt, share, seed):
    pairs = pairs_of(n, per_prompt)
    training, held_out = hold_out_prompts(pairs, share=share, seed=seed)
    assert set(training["prompt"]).isdisjoint(held_out["prompt"])
    assert sorted([*training["pair_id"], *held_out["pair_id"]]) == sorted(pairs["pair_id"])
    assert held_out["prompt"].nunique() == math.ceil(share * pairs["prompt"].nunique())
    for part in (training, held_out):
        numbers = [int(pair_id[1:]) for pair_id in part["pair_id"]]
        assert numbers == sorted(numbers)


def test_the_seed_decides_the_draw():
    first, again, other = (hold_out_prompts(pairs_of(40), share=0.2, seed=seed)[1] for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    assert set(first["pair_id"]) != set(other["pair_id"])


def test_a_share_of_zero_holds_nothing_out():
    training, held_out = hold_out_prompts(pairs_of(8), share=0.0, seed=0)
    assert (len(training), len(held_out)) == (8, 0)


def test_nothing_left_to_train_on_is_refused():
    with pytest.raises(DataError, match=r"2 pairs of 1 prompts, 1 of these held out.*align\.held_out_share"):
        hold_out_prompts(pairs_of(2, per_prompt=2), share=0.1, seed=0)
