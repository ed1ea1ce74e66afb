"""Examples of a batch → tensors, in parts that fit the memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from realignment.likelihood.packing import Layout, Rows
from realignment.objective.hybrid import Example, count_dispositions, error_rates
from realignment.training.reference import CachedReference

Part = dict[str, Any]
"""A part of a batch that one forward pass takes, as tensors; see `Collator`."""


@dataclass(frozen=True, slots=True)
class Collator:
    """Examples → one batch, in parts of at most `token_budget` tokens (but one pair at least).

    A batch is what the loss is a mean over, a part is what fits the memory: the losses of the parts add up to
    the batch's, whatever the budget.

    No part has both conflicts and retained pairs. Products of another shape round otherwise, so policy and
    reference agree to the last bit in half precision only where both compute the very same rows.

    Attributes:
        layout: How the model's pairs are packed.
        token_budget: Tokens of a part; None: no limit.
        cached_reference: The reference of retained pairs on disk; None: the trainer computes it.
        fixed_weights: The examples' weights are those they are trained with: a conflict whose weight is zero
            counts in the means alone, and no part has it.
        mix: Shares of INVERT, PUNISH and RETAIN pairs in the data. The means of a batch are over the numbers
            that are expected in it: over its own, a disposition that small batches often lack would count
            less than λ says. None: the batch's own numbers.
    """

    layout: Layout
    token_budget: int | None = None
    cached_reference: CachedReference | None = None
    fixed_weights: bool = True
    mix: tuple[float, ...] | None = None

    def __call__(self, examples: Sequence[Example]) -> dict[str, list[Part]]:
        """Collate a batch.

        Args:
            examples: One batch.

        Returns:
            The parts, one at least; nested dicts of tensors, so that any accelerator can move them. `counts`
            are the pairs of each disposition that the means are over (3,), and `shares` is 1 / parts for each
            that there is: the part's share in terms that are means over the whole batch.
        """
        if self.mix is None:
            counts = count_dispositions(torch.tensor([int(example.treatment) for example in examples]))
        else:
            counts = len(examples) * torch.tensor(self.mix)
        # Where nothing is trained, one pair is: without a gradient an optimizer would not even coast.
        trained = [e for e in examples if self._is_trained(e)] or examples[:1]
        groups = self._divide([e for e in trained if e.treatment.is_conflict])
        groups += self._divide([e for e in trained if not e.treatment.is_conflict])
        common = {"counts": counts, "shares": (counts > 0) / len(groups)}
        return {"parts": [self._collate(group) | common for group in groups]}

    def _divide(self, examples: list[Example]) -> list[list[Example]]:
        """Divide examples into groups within the token budget, each in the order of the batch."""
        batches = self.layout.batches([e.tokens for e in examples], budget=self.token_budget)
        return [[examples[i] for i in sorted(members)] for members in batches]

    def _is_trained(self, example: Example) -> bool:
        return not self.fixed_weights or not example.treatment.is_conflict or example.weight != 0

    def _collate(self, examples: Sequence[Example]) -> Part:
        """Pack the examples of one part; NaN stands for a reference that is not in the example."""
        references: list[float] = []
        for example in examples:
            references += example.reference or (math.nan,) * len(example.tokens.responses)
        is_retained = not examples[0].treatment.is_conflict
        cached = {}
        if is_retained and self.cached_reference is not None:
            cached = self.cached_reference.select([e.pair_id for e in examples])
        rows = self.layout([example.tokens for example in examples])
        return {
            "rows": {name: getattr(rows, name) for name in Rows.__slots__},
            "is_retained": is_retained,
            "cached_reference": cached,
            "treatments": torch.tensor([int(example.treatment) for example in examples]),
            "weights": torch.tensor([example.weight for example in examples]),
            "error_rates": error_rates(examples),
            "reference": torch.tensor(references),
        }
