"""Compute an oracle's figures from a confusion matrix of the population: shares, F1, κ, misrouting."""

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
    """Compute agreement beyond chance (Cohen's κ).

    Args:
        confusion: Square matrices of totals, shape (…, K, K).

    Returns:
        κ of each, shape (…); NaN where one cell holds everything.
    """
    total = confusion.sum(axis=(-2, -1))
    agreement = ratio(np.trace(confusion, axis1=-2, axis2=-1), total)
    rows = confusion.sum(axis=-1)
    columns = confusion.sum(axis=-2)
    chance = ratio((rows * columns).sum(axis=-1), total**2)
    return ratio(agreement - chance, 1 - chance)


@dataclass(frozen=True, slots=True)
class Dispositions:
    """Counts of assigned against true dispositions.

    Attributes:
        counts: Strata are the assigned dispositions, cells the true ones (`ROUTED`).
        assigned: The disposition of each stratum.
    """

    counts: Tally
    assigned: tuple[Disposition, ...]

    @classmethod
    def count(cls, population: pd.DataFrame, audited: pd.DataFrame) -> "Dispositions":
        """Count the audited pairs by assigned and true disposition.

        Args:
            population: Every pair with `disposition`.
            audited: Pairs of known truth with `disposition` and `true_disposition`.

        Returns:
            The counts.
        """
        cells = {str(true): partial(_disposition_prior, true) for true in ROUTED}
        keys, counts = tally(population, audited, ["disposition"], "true_disposition", cells)
        return cls(counts, tuple(Disposition(str(key)) for (key,) in keys))

    def matrix(self, totals: Totals) -> Totals:
        """Arrange totals (…, S, 3) as assigned × true, shape (…, 4, 3); without a stratum a row is zero."""
        matrix = np.zeros((*totals.shape[:-2], len(ASSIGNED), len(ROUTED)))
        for place, disposition in enumerate(self.assigned):
            matrix[..., ASSIGNED.index(disposition), :] = totals[..., place, :]
        return matrix

    def metrics(self) -> dict[tuple[str, str], Metric]:
        """Return the metrics by (name, group).

        Recall counts pairs in REVIEW as missed; κ and misrouted omit them.
        """
        metrics: dict[tuple[str, str], Metric] = {
            ("accuracy", "all pairs"): lambda totals: _accuracy(self.matrix(totals)),
            ("misrouted", "all pairs"): lambda totals: misrouted(self.matrix(totals)),
            ("kappa", "all pairs"): lambda totals: kappa(self.matrix(totals)[..., :3, :]),
        }
        for place, disposition in enumerate(ROUTED):
            for name, metric in (("precision", _precision), ("recall", _recall), ("f1", _f1)):
                metrics[name, str(disposition)] = partial(self._metric_of_disposition, metric, place)
        return metrics

    def _metric_of_disposition(self, metric: MatrixMetric, place: int, totals: Totals) -> Totals:
        return metric(self.matrix(totals), place)

    def cell(self, assigned: Disposition, true: Disposition) -> Metric:
        """Return the metric that counts the pairs of the population in one cell."""
        row = ASSIGNED.index(assigned)
        column = ROUTED.index(true)
        return lambda totals: self.matrix(totals)[..., row, column]

    def audited_in(self, name: str, group: str) -> int:
        """Count the audited pairs behind a figure: those of its disposition for precision, else all."""
        if name == "precision":
            in_group = np.array([disposition == group for disposition in self.assigned], dtype=bool)
            return int(self.counts.counts[in_group].sum())
        return self.counts.n


def _disposition_prior(true: Disposition, key: tuple[Hashable, ...]) -> float:
    """One pseudo-pair per stratum: half for the assigned disposition, the rest for the others."""
    if key[0] == Disposition.REVIEW:
        return 1 / len(ROUTED)
    return 0.5 if key[0] == true else 0.25


def _accuracy(matrix: Totals) -> Totals:
    return ratio(np.trace(matrix[..., :3, :], axis1=-2, axis2=-1), matrix.sum(axis=(-2, -1)))


def misrouted(matrix: Totals) -> Totals:
    """Compute the share of the pairs outside REVIEW that have another disposition than the truth implies."""
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
    """Return metrics of yes/no verdicts, for a tally by verdict whose cells are right and wrong.

    Precision, recall and F1 are those of "violates": the share of the alarms that is true, and the share of
    the violations that is found.

    Args:
        keys: The strata.
        at: Position of the verdict in a stratum's key; true is "complies".

    Returns:
        accuracy, precision, recall, f1 and kappa, each of totals (…, S, 2).
    """
    is_alarm = np.array([not key[at] for key in keys])  # shape (S,)

    def cells(totals: Totals) -> tuple[Totals, ...]:
        """True and false positives, false and true negatives, shape (…) each."""
        right = totals[..., 0]
        wrong = totals[..., 1]
        return (
            (right * is_alarm).sum(axis=-1),
            (wrong * is_alarm).sum(axis=-1),
            (wrong * ~is_alarm).sum(axis=-1),
            (right * ~is_alarm).sum(axis=-1),
        )

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
        alarms = np.stack([tp, fp], axis=-1)
        others = np.stack([fn, tn], axis=-1)
        return kappa(np.stack([alarms, others], axis=-2))

    return {"accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1, "kappa": cohen}


def half(_: tuple[Hashable, ...]) -> float:
    """Return Jeffreys' pseudo-count of each of two cells."""
    return 0.5


def estimate_all(counts: Tally, metrics: dict[str, Metric], rng: np.random.Generator) -> dict[str, Estimate]:
    """Estimate each metric of one tally."""
    return {name: estimate(counts, metric, rng) for name, metric in metrics.items()}
