"""Measure the answers themselves: length, diversity, repetition, entropy, refusals, and how many were cut.

A collapse of the model shows here before it shows in verdicts. No judge is involved.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from realignment.evaluation.measures import metric_row, prompt_clusters
from realignment.evaluation.refusals import is_refusal
from realignment.statistics import compare_items


def count_words(text: str) -> int:
    """Return the number of words of an answer."""
    return len(text.split())


def distinct_share(text: str, n: int) -> float:
    """Compute distinct-n of one answer: its different n-grams over all; 1 where it has none.

    Li et al. 2016, arXiv:1510.03055.

    Args:
        text: An answer; its words are compared in lower case.
        n: Words per n-gram, ≥ 1.

    Returns:
        A share; 1: no n-gram occurs twice.

    Example:
        >>> distinct_share("The cat saw the cat", 2)  # the cat, cat saw, saw the
        0.75
    """
    words = text.lower().split()
    ngrams = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else 1.0


def repeated_share(text: str, n: int = 4) -> float:
    """Compute the share of an answer's n-grams that occurred in it before; 0 where it has none.

    The sequence repetition of Welleck et al. 2020, arXiv:1908.04319: 1 − distinct-n.

    Args:
        text: An answer.
        n: Words per n-gram, ≥ 1.

    Returns:
        A share; near 1 for an answer that is caught in a loop.
    """
    return 1 - distinct_share(text, n)


MEASURES: dict[str, tuple[Callable[[str], float], str]] = {
    "response_length": (count_words, "words"),
    "distinct_1": (lambda text: distinct_share(text, 1), "share"),
    "distinct_2": (lambda text: distinct_share(text, 2), "share"),
    "repetition": (repeated_share, "share"),
    "refusal_phrases": (is_refusal, "share"),
}
"""Metric → what it is of one answer, and its unit."""

RECORDED = {"entropy": "nats/token", "cut": "share"}
"""What was recorded while the answers were generated, by the columns `before_…` and `after_…` → unit."""

METRIC_NAMES = {"entropy": "entropy", "cut": "answers_cut"}


def text_rows(responses: pd.DataFrame, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Compare the texts of the answers before and after.

    Args:
        responses: Prompts with the answers `before` and `after`; where they were recorded, with
            before_cut, after_cut (yes, no or null) and before_entropy, after_entropy (nats/token or null).
        rng: Source of the bootstrap intervals.

    Yields:
        The rows of `MEASURES`, then of `RECORDED`, each in the group `overall`.
    """
    clusters = prompt_clusters(responses)
    for metric, (measure, unit) in MEASURES.items():
        before = np.array([measure(text) for text in responses["before"]])
        after = np.array([measure(text) for text in responses["after"]])
        if len(responses):
            yield metric_row(metric, "overall", compare_items(before, after, clusters, rng), unit=unit)
    for name, unit in RECORDED.items():
        columns = [f"before_{name}", f"after_{name}"]
        known = responses.reindex(columns=columns).dropna()
        if len(known):
            kind = bool if name == "cut" else float
            before, after = (known[column].to_numpy(kind) for column in columns)
            comparison = compare_items(before, after, prompt_clusters(responses.loc[known.index]), rng)
            yield metric_row(METRIC_NAMES[name], "overall", comparison, unit=unit)
