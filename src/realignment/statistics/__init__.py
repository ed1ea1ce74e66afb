"""Figures with their uncertainty: intervals, and differences on the same items with a paired test."""

from realignment.statistics.clustered import compare_clustered, compare_items
from realignment.statistics.paired import (
    RESAMPLES,
    Comparison,
    Interval,
    Z,
    cohen_kappa,
    compare_means,
    compare_proportions,
    mcnemar_p,
    newcombe_interval,
    wilcoxon_p,
    wilson_interval,
)

__all__ = [
    "RESAMPLES",
    "Comparison",
    "Interval",
    "Z",
    "cohen_kappa",
    "compare_clustered",
    "compare_items",
    "compare_means",
    "compare_proportions",
    "mcnemar_p",
    "newcombe_interval",
    "wilcoxon_p",
    "wilson_interval",
]
