"""Figures of an oracle from a confusion matrix of the population: shares, F1, Cohen's κ, misrouting."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from realignment.audit.sampling import ROUTED, Estimate, Metric, Tally, Totals, estimate, ratio, tally
from realignment.records import Disposition

ASSIGNED = (*ROUTED, Disposition.REVIEW)

MatrixMetric = Callable[[Totals, int], Totals]
"""A confusion matrix (…, 4, 3) and a disposition's place in it → its figure."""


def kappa(confusion: Totals) -> Totals:
    """Agreement beyond chance of a square matrix (…, K, K); NaN where one cell holds everything."""
    total = confusion.sum(axis=(-2, -1))
    agree = ratio(np.trace(confusion, axis1=-2, axis2=-1), total)
    rows, columns = confusion.sum(axis=-1), confusion.sum(axis=-2)
    chance = ratio((rows * columns).sum(axis=-1), total**2)
    return ratio(agree - chance, 1 - chance)


@dataclass(frozen=True, slots=True)
class Dispositions:
    """Assigned against true dispositions.

    Attributes:
        counts: Strata are the assigned dispositions, cells the true ones (`ROUTED`).
        assigned: The disposition of each stratum.
    """

    counts: Tally
    assigned: tuple[Disposition, ...]

    @classmethod
    def of(cls, population: pd.DataFrame, audited: pd.DataFrame) -> "Dispositions":
        """Count.

        Args:
            population: Every pair with `disposition`.
            audited: Pairs of known truth with `disposition` and `true_disposition`.
        """
        cells = {str(true): partial(_disposition_prior, true) for true in ROUTED}
        keys, counts = tally(population, audited, ["disposition"], "true_disposition", cells)
        return cls(counts, tuple(Disposition(str(key)) for (key,) in keys))

    def matrix(self, totals: Totals) -> Totals:
        """Totals (…, S, 3) as assigned × true, shape (…, 4, 3); a disposition without a stratum is zero."""
        matrix = np.zeros((*totals.shape[:-2], len(ASSIGNED), len(ROUTED)))
        for place, disposition in enumerate(self.assigned):
            matrix[..., ASSIGNED.index(disposition), :] = totals[..., place, :]
        return matrix

    def metrics(self) -> dict[tuple[str, str], Metric]:
        """(metric, group) → metric. Recall counts pairs in REVIEW as missed; κ and misrouted omit them."""
        found: dict[tuple[str, str], Metric] = {
            ("accuracy", "all pairs"): lambda t: _accuracy(self.matrix(t)),
            ("misrouted", "all pairs"): lambda t: misrouted(self.matrix(t)),
            ("kappa", "all pairs"): lambda t: kappa(self.matrix(t)[..., :3, :]),
        }
        for place, disposition in enumerate(ROUTED):
            for name, metric in (("precision", _precision), ("recall", _recall), ("f1", _f1)):
                found[name, str(disposition)] = partial(self._of_one, metric, place)
        return found

    def _of_one(self, metric: MatrixMetric, place: int, totals: Totals) -> Totals:
        return metric(self.matrix(totals), place)

    def cell(self, assigned: Disposition, true: Disposition) -> Metric:
        """How many pairs of the population are in one cell."""
        return lambda t: self.matrix(t)[..., ASSIGNED.index(assigned), ROUTED.index(true)]

    def audited_in(self, name: str, group: str) -> int:
        """How many audited pairs a figure rests on: those of its disposition for precision, else all."""
        if name == "precision":
            rows = [row for row, d in zip(self.counts.counts, self.assigned, strict=True) if d == group]
            return int(sum(row.sum() for row in rows))
        return self.counts.n


def _disposition_prior(true: Disposition, key: tuple[Hashable, ...]) -> float:
    if key[0] == Disposition.REVIEW:
        return 1 / len(ROUTED)
    return 0.5 if key[0] == true else 0.25


def _accuracy(matrix: Totals) -> Totals:
    return ratio(np.trace(matrix[..., :3, :], axis1=-2, axis2=-1), matrix.sum(axis=(-2, -1)))


def misrouted(matrix: Totals) -> Totals:
    """Share of the pairs outside REVIEW that have another disposition than the truth implies."""
    routed = matrix[..., :3, :]
    return 1 - ratio(np.trace(routed, axis1=-2, axis2=-1), routed.sum(axis=(-2, -1)))


def _precision(matrix: Totals, place: int) -> Totals:
    return ratio(matrix[..., place, place], matrix[..., place, :].sum(axis=-1))


def _recall(matrix: Totals, place: int) -> Totals:
    return ratio(matrix[..., place, place], matrix[..., :, place].sum(axis=-1))


def _f1(matrix: Totals, place: int) -> Totals:
    both = matrix[..., place, :].sum(axis=-1) + matrix[..., :, place].sum(axis=-1)
    return ratio(2 * matrix[..., place, place], both)


def verdict_metrics(keys: list[tuple[Hashable, ...]], at: int) -> dict[str, Metric]:
    """Figures of yes/no verdicts whose strata know the verdict, and whose cells are right and wrong.

    Precision, recall and F1 are those of "violates": what share of the alarms is true, and of the violations
    found.

    Args:
        keys: The strata.
        at: Where a stratum's key has the verdict; true is "complies".
    """
    alarm = np.array([not key[at] for key in keys])

    def cells(totals: Totals) -> tuple[Totals, ...]:
        right, wrong = totals[..., 0], totals[..., 1]
        return (
            (right * alarm).sum(axis=-1), (wrong * alarm).sum(axis=-1),
            (wrong * ~alarm).sum(axis=-1), (right * ~alarm).sum(axis=-1),
        )  # fmt: skip

    def accuracy(totals: Totals) -> Totals:
        tp, fp, fn, tn = cells(totals)
        return ratio(tp + tn, tp + fp + fn + tn)

    def precision(totals: Totals) -> Totals:
        tp, fp, *_ = cells(totals)
        return ratio(tp, tp + fp)

    def recall(totals: Totals) -> Totals:
        tp, _, fn, _ = cells(totals)
        return ratio(tp, tp + fn)

    def f1(totals: Totals) -> Totals:
        tp, fp, fn, _ = cells(totals)
        return ratio(2 * tp, 2 * tp + fp + fn)

    def cohen(totals: Totals) -> Totals:
        tp, fp, fn, tn = cells(totals)
        return kappa(np.stack([np.stack([tp, fp], axis=-1), np.stack([fn, tn], axis=-1)], axis=-2))

    return {"accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1, "kappa": cohen}


def half(_: tuple[Hashable, ...]) -> float:
    """Jeffreys' pseudo-count of each of two cells."""
    return 0.5


def estimate_all(counts: Tally, metrics: dict[str, Metric], rng: np.random.Generator) -> dict[str, Estimate]:
    """Each metric of one tally."""
    return {name: estimate(counts, metric, rng) for name, metric in metrics.items()}
