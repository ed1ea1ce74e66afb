"""The figures of a training step that are logged besides the loss: its terms, and mean log-ratios."""

import torch
from torch import Tensor

from realignment.objective.hybrid import Treatment, is_retained

DISPOSITION_OF_TERM = {"invert_loss": 0, "punish_loss": 1, "retain_loss": 2, "retain_kl": 2}
"""The disposition (`objective.hybrid.disposition_indices`) over whose pairs a term of the loss is a mean."""


class Figures:
    """Means of the figures since the last log; a figure for which there was no pair is left out, not zero."""

    def __init__(self) -> None:
        # Sums and counts, one entry a part. They stay on the device: reading them would wait for it.
        self._entries: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def record(
        self,
        terms: dict[str, Tensor],
        logratios: Tensor,
        first: Tensor,
        owner: Tensor,
        treatments: Tensor,
        shares: Tensor,
    ) -> None:
        """Record the figures of a part of a batch.

        Args:
            terms: Terms of the hybrid loss, scalars.
            logratios: log π_θ − log π_ref of each response in nats, shape (R,).
            first: Index of each pair's first response, shape (P,).
            owner: Index of each response's pair, shape (R,).
            treatments: `Treatment` of each pair, shape (P,).
            shares: The part's share in a mean over the batch's pairs of each disposition, shape (3,).
        """
        # Indices of the first responses by treatment. They are the preferred ones, but in SUPPRESS.
        prefer = first[treatments == Treatment.PREFER]
        correct = first[treatments == Treatment.CORRECT]
        imitate = first[treatments == Treatment.IMITATE]
        affirm = first[treatments == Treatment.AFFIRM]
        retained = first[is_retained(treatments)]
        suppressed = (treatments[owner] == Treatment.SUPPRESS).nonzero()[:, 0]  # all of a pair's responses
        dispreferred = torch.cat([prefer + 1, correct + 1, correct + 2, suppressed, affirm + 1])
        values = {
            "margin": logratios[prefer] - logratios[prefer + 1],
            "logratio_preferred": logratios[torch.cat([prefer, correct, imitate])],
            "logratio_dispreferred": logratios[dispreferred],
            "logratio_retained": logratios[retained],
        }
        for name, numbers in values.items():
            self._add(name, numbers.sum(), numbers.new_tensor(len(numbers)))
        # A term is a mean over the whole batch, to which the parts' shares of it add up.
        for name, disposition in DISPOSITION_OF_TERM.items():
            self._add(name, terms[name].detach(), shares[disposition])

    def pop_means(self) -> dict[str, float]:
        """Return the means since the last call, and begin anew."""
        means = {}
        for name, entries in sorted(self._entries.items()):
            total = float(torch.stack([value for value, _ in entries]).sum())
            count = float(torch.stack([count for _, count in entries]).sum())
            if count:
                means[name] = total / count
        self._entries.clear()
        return means

    def _add(self, name: str, total: Tensor, count: Tensor) -> None:
        self._entries.setdefault(name, []).append((total, count))
