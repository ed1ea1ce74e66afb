"""Whether a difference has anything to do with the choices, stronger ones being equal."""

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

Floats = npt.NDArray[np.float64]

FALSE_DISCOVERIES = 0.01
"""Expected share of principles that are none, among those found."""

_RIDGE = 1e-3
"""Weight of the squared coefficients beside the mean loss: it only keeps separable choices from diverging."""


def score_tests(inputs: Floats, first: npt.NDArray[np.int64], groups: npt.NDArray[Any]) -> Floats:
    """Two-sided p of each input in a logistic model of the choices, given the inputs before it; shape (f,).

    Given those before it, and not given all: of two inputs that say the same the stronger is found, not
    neither. The generalised score test (Boos 1992, The American Statistician 46:327-333): the model is fitted
    without the input, so a perfect predictor is no trouble, and its variance is summed over groups, so pairs
    of one prompt are not taken for independent.

    Args:
        inputs: Differences, the strongest first, shape (n, f).
        first: Whether the first response was chosen, shape (n,).
        groups: What belongs together, shape (n,).
    """
    _, members = np.unique(groups, return_inverse=True)
    results = np.ones(inputs.shape[1])
    for column in range(inputs.shape[1]):
        before = inputs[:, :column]
        probability = _fit(before, first)
        weights = probability * (1 - probability)
        rest = inputs[:, column]
        if column:
            gram = before.T @ (before * weights[:, None]) + _RIDGE * len(inputs) * np.eye(column)
            rest = rest - before @ np.linalg.solve(gram, before.T @ (weights * rest))
        terms = rest * (first - probability)
        variance = float((np.bincount(members, weights=terms) ** 2).sum())
        if variance > 0:
            results[column] = 2 * scipy.stats.norm.sf(abs(terms.sum()) / np.sqrt(variance))
    return results


def _fit(inputs: Floats, first: npt.NDArray[np.int64]) -> Floats:
    """Fitted probabilities that the first is chosen."""
    from sklearn.linear_model import LogisticRegression

    if not inputs.shape[1] or len(set(first)) < 2:
        return np.full(len(first), 0.5)
    model = LogisticRegression(C=1 / (_RIDGE * len(first)), fit_intercept=False, max_iter=1000)
    return np.asarray(model.fit(inputs, first).predict_proba(inputs)[:, 1])


def adjust(p_values: Floats) -> Floats:
    """q: the least false discovery rate at which each would be a discovery (Benjamini & Hochberg 1995)."""
    if not len(p_values):
        return p_values
    return np.asarray(scipy.stats.false_discovery_control(p_values), dtype=np.float64)
