import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from realignment.objective.hybrid import Treatment
from realignment.objective.order import epoch_order, interleave

TREATMENTS = st.lists(st.sampled_from([int(treatment) for treatment in Treatment]), min_size=1, max_size=80)


@given(TREATMENTS, st.integers(0, 2**31))
@settings(deadline=None)
def test_interleaving_is_a_permutation_with_nearly_the_overall_proportions_in_every_window(treatments, seed):
    order = interleave(treatments, torch.Generator().manual_seed(seed))
    assert sorted(order) == list(range(len(treatments)))
    mixed, kinds = [treatments[i] for i in order], set(treatments)
    for kind in kinds:
        share = treatments.count(kind) / len(treatments)
        for start in range(len(mixed)):
            for end in range(start + 1, len(mixed) + 1):
                # Each treatment is evenly spaced, so it deviates by one item, and so do the others together.
                assert abs(mixed[start:end].count(kind) - share * (end - start)) <= 1 + share * len(kinds)


def test_one_seed_gives_one_order_and_another_seed_another():
    treatments = [0] * 30 + [3] * 20
    order = epoch_order(treatments, epochs=2, seed=4)
    assert order == epoch_order(treatments, epochs=2, seed=4)
    assert order != epoch_order(treatments, epochs=2, seed=5)


@pytest.mark.parametrize(("epochs", "size"), [(1, 10), (2, 20), (0.5, 5), (2.5, 25), (0.01, 1)])
def test_every_epoch_holds_each_pair_once_and_a_fraction_is_its_first_part(epochs, size):
    treatments = [0, 1, 2, 3, 3, 3, 3, 0, 0, 1]
    order = epoch_order(treatments, epochs=epochs, seed=1)
    whole = epoch_order(treatments, epochs=3, seed=1)
    assert order == whole[:size]
    assert sorted(whole[:10]) == sorted(whole[10:20]) == list(range(10))
    assert whole[:10] != whole[10:20]
