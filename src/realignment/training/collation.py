"""Examples of a batch → tensors, in parts that fit the memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from realignment.likelihood.packing import Layout, Rows
from realignment.objective.hybrid import Example, count_dispositions, error_rates
from realignment.training.reference import KeptReference

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
        layout: How the model's pairs are laid out.
        token_budget: Tokens of a part; None: as many as there are.
        kept_reference: What is kept of the reference of retained pairs.
        fixed_weights: The examples' weights are those they are trained with: a conflict whose weight is zero
            counts in the means alone, and no part has it.
    """

    layout: Layout
    token_budget: int | None = None
    kept_reference: KeptReference | None = None
    fixed_weights: bool = True

    def __call__(self, examples: Sequence[Example]) -> dict[str, list[Part]]:
        """The parts (nested dicts of tensors, so that any accelerator can move them), one at least."""
        counts = count_dispositions(torch.tensor([int(example.treatment) for example in examples]))
        # Where nothing is trained, one pair is: without a gradient an optimizer would not even coast.
        trained = [e for e in examples if self._is_trained(e)] or examples[:1]
        conflicts = [e for e in trained if e.treatment.is_conflict]
        retained = [e for e in trained if not e.treatment.is_conflict]
        groups = [
            [side[i] for i in sorted(members)]
            for side in (conflicts, retained)
            for members in self.layout.batches([e.tokens for e in side], budget=self.token_budget)
        ]
        common = {"counts": counts, "shares": (counts > 0) / len(groups)}
        return {"parts": [self._collate(group) | common for group in groups]}

    def _is_trained(self, example: Example) -> bool:
        return not self.fixed_weights or not example.treatment.is_conflict or example.weight != 0

    def _collate(self, examples: Sequence[Example]) -> Part:
        """Lay the examples out; NaN stands for a reference that is not known."""
        reference = [
            value for e in examples for value in (e.reference or (float("nan"),) * len(e.tokens.responses))
        ]
        retained, kept = not examples[0].treatment.is_conflict, self.kept_reference
        rows = self.layout([example.tokens for example in examples])
        return {
            "rows": {name: getattr(rows, name) for name in Rows.__slots__},
            "is_retained": retained,
            "kept": kept.of([e.pair_id for e in examples]) if retained and kept else {},
            "treatments": torch.tensor([int(example.treatment) for example in examples]),
            "weights": torch.tensor([example.weight for example in examples]),
            "error_rates": error_rates(examples),
            "reference": torch.tensor(reference),
        }
