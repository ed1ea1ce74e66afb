"""Examples of a batch → tensors, in parts that fit the memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from realignment.objective import Example, count_dispositions, error_rates
from realignment.packing.rows import Layout, Rows
from realignment.training.reference import KeptReference

Part = dict[str, Any]
"""A part of a batch that one forward pass takes, as tensors; see `Collator`."""


@dataclass(frozen=True, slots=True)
class Collator:
    """Examples → one batch, in parts of at most `token_budget` tokens (but one pair at least).

    A batch is what the loss is a mean over, a part is what fits the memory: the losses of the parts add up to
    the batch's, whatever the budget.
    """

    layout: Layout
    token_budget: int | None = None
    kept_reference: KeptReference | None = None

    def __call__(self, examples: Sequence[Example]) -> dict[str, list[Part]]:
        """The parts (nested dicts of tensors, so that any accelerator can move them)."""
        counts = count_dispositions(torch.tensor([int(example.treatment) for example in examples]))
        parts = self.layout.batches([e.tokens for e in examples], budget=self.token_budget)
        return {"parts": [self._collate([examples[i] for i in sorted(part)], counts) for part in parts]}

    def _collate(self, examples: Sequence[Example], counts: Tensor) -> Part:
        """Lay the examples out; NaN stands for a reference that is not known."""
        reference = [
            value for e in examples for value in (e.reference or (float("nan"),) * len(e.tokens.responses))
        ]
        retained, kept = [e for e in examples if not e.treatment.is_conflict], self.kept_reference
        return {
            "rows": _tensors(self.layout([example.tokens for example in examples])),
            "retained": _tensors(self.layout([e.tokens for e in retained])) if retained and not kept else {},
            "kept": kept.of([e.pair_id for e in retained]) if retained and kept else {},
            "treatments": torch.tensor([int(example.treatment) for example in examples]),
            "weights": torch.tensor([example.weight for example in examples]),
            "error_rates": error_rates(examples),
            "reference": torch.tensor(reference),
            "counts": counts,
        }


def _tensors(rows: Rows) -> dict[str, Any]:
    return {name: getattr(rows, name) for name in Rows.__slots__}
