"""The order of the examples in training: every batch with nearly the overall mix of treatments."""

import math
from collections.abc import Sequence

import torch


def epoch_order(treatments: Sequence[int], *, epochs: float, seed: int) -> list[int]:
    """Order the examples of all epochs.

    Args:
        treatments: `Treatment` of each example.
        epochs: Passes over the examples; a fraction of an epoch is its first part.
        seed: Seed of the order.

    Returns:
        Indices of the examples of all epochs in one list, each epoch interleaved anew.
    """
    order: list[int] = []
    for epoch in range(math.ceil(epochs)):
        # Seeds are far apart, so that no two of them share the order of an epoch.
        generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
        order += interleave(treatments, generator)
    return order[: max(1, round(epochs * len(treatments)))]


def interleave(treatments: Sequence[int], generator: torch.Generator) -> list[int]:
    """Draw an order in which every stretch holds the treatments in nearly their overall proportion.

    Each treatment is shuffled and spread evenly: with plain shuffling a small batch often lacks a treatment,
    and the means over the batch's own rows then give the treatments it has too large a share.

    Args:
        treatments: `Treatment` of each example.
        generator: Source of randomness.

    Returns:
        A permutation of the examples' indices.
    """
    # A key in [0, 1) for each example: the n examples of a treatment are 1/n apart. The order sorts by it.
    keys = torch.empty(len(treatments), dtype=torch.float64)
    kinds = torch.tensor(treatments)
    for kind in kinds.unique():
        members = (kinds == kind).nonzero()[:, 0]
        shuffled = members[torch.randperm(len(members), generator=generator)]
        offset = torch.rand((), generator=generator, dtype=torch.float64)
        keys[shuffled] = (torch.arange(len(members)) + offset) / len(members)
    return keys.argsort(stable=True).tolist()
