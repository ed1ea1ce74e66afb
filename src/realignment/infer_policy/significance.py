"""Tests whether a difference explains choices beyond stronger ones, and their false discovery rates."""

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

Floats = npt.NDArray[np.float64]

FALSE_DISCOVERIES = 0.01
"""Largest expected share of false discoveries among the principles that are kept."""

_RIDGE = 1e-3
"""Weight of the squared coefficients beside the mean loss, just enough for separable choices to converge."""


def score_tests(inputs: Floats, first: npt.NDArray[np.int64], groups: npt.NDArray[Any]) -> Floats:
    """Test each input in a logistic model of the choices, given the inputs before it.

    Given those before it, and not given all others: of two inputs that say the same, the stronger is found
    rather than neither. The generalised score test (Boos 1992, The American Statistician 46:327-333): the
    model is fitted without the input, so that a perfect predictor does not diverge, and the variance is
    summed over groups, so that pairs of one prompt do not count as independent.

    Args:
        inputs: Differences, the strongest first, shape (n, f).
        first: 1 where the first response was chosen, else 0, shape (n,).
        groups: The prompt of each pair, shape (n,).

    Returns:
        Two-sided p-values, shape (f,); 1 where the score has no variance.
    """
    _, group_of_row = np.unique(groups, return_inverse=True)
    p_values = np.ones(inputs.shape[1])
    for column in range(inputs.shape[1]):
        earlier = inputs[:, :column]  # (n, column)
        probabilities = _fit_probabilities(earlier, first)  # (n,)
        residual = inputs[:, column]  # (n,)
        if column:
            # Remove what the earlier inputs explain of this one: a regression weighted by the variance of
            # each choice, with the ridge of the fit.
            weights = probabilities * (1 - probabilities)
            gram = earlier.T @ (earlier * weights[:, None]) + _RIDGE * len(inputs) * np.eye(column)
            residual = residual - earlier @ np.linalg.solve(gram, earlier.T @ (weights * residual))
        scores = residual * (first - probabilities)  # each pair's term of the score, (n,)
        variance = float((np.bincount(group_of_row, weights=scores) ** 2).sum())
        if variance > 0:
            p_values[column] = 2 * scipy.stats.norm.sf(abs(scores.sum()) / np.sqrt(variance))
    return p_values


def _fit_probabilities(inputs: Floats, first: npt.NDArray[np.int64]) -> Floats:
    """Return the fitted probability of each pair that its first response is chosen, shape (n,)."""
    from sklearn.linear_model import LogisticRegression

    if not inputs.shape[1] or len(set(first)) < 2:
        return np.full(len(first), 0.5)
    model = LogisticRegression(C=1 / (_RIDGE * len(first)), fit_intercept=False, max_iter=1000)
    return np.asarray(model.fit(inputs, first).predict_proba(inputs)[:, 1])


def adjust_p_values(p_values: Floats) -> Floats:
    """Return q-values, shape (f,): the lowest false discovery rate at which each test is a discovery.

    Benjamini & Hochberg 1995.

    Args:
        p_values: Of all tests, shape (f,).
    """
    if not len(p_values):
        return p_values
    return np.asarray(scipy.stats.false_discovery_control(p_values), dtype=np.float64)
