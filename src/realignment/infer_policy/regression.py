"""A sparse logistic regression of choices on differences of features, its penalty and its uncertainty."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from realignment.infer_policy.significance import score_tests

Floats = npt.NDArray[np.float64]

STRENGTHS = np.geomspace(1, 1000, 25)
"""Candidates of the cross-validation: weights of the mean loss against the sum of absolute coefficients.
A small weight is a strong penalty."""


@dataclass(frozen=True)
class ChoiceRegression:
    """A logistic regression of choices on differences of features.

    Each pair is put in random order, so that there is no intercept to fit.

    Attributes:
        differences: Chosen − rejected, shape (n, f).
        groups: The prompt of each pair, shape (n,): pairs of a prompt are in one fold and one sample.
        seed: Seeds orders, folds and samples.
    """

    differences: Floats
    groups: npt.NDArray[Any]
    seed: int

    def _build_inputs(self) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Return differences first − second of unit root mean square, (n, f); 1 where the first is chosen."""
        signs = np.where(np.random.default_rng(self.seed).random(len(self.differences)) < 0.5, 1, -1)
        # No mean is subtracted: a difference of zero must stay zero.
        scale = np.sqrt((self.differences**2).mean(axis=0))
        return self.differences / scale * signs[:, None], (signs > 0).astype(np.int64)

    def fit(self, strength: float, rows: npt.NDArray[np.int64]) -> Floats:
        """Return the coefficients of a fit to some rows, shape (f,)."""
        from sklearn.linear_model import LogisticRegression

        inputs, first_chosen = self._build_inputs()
        # scikit-learn's C weighs the sum of the losses, our strength their mean.
        model = LogisticRegression(
            C=strength / len(rows), l1_ratio=1.0, solver="liblinear", fit_intercept=False, max_iter=1000,
            random_state=self.seed,
        )  # fmt: skip
        if len(set(first_chosen[rows])) < 2:  # nothing to separate
            return np.zeros(inputs.shape[1])
        return np.asarray(model.fit(inputs[rows], first_chosen[rows]).coef_[0], dtype=np.float64)

    def cross_validate(self, folds: int) -> tuple[float, npt.NDArray[np.bool_]]:
        """Choose the penalty by the one-standard-error rule.

        The standard error is that of the difference in loss on the same pairs.

        Args:
            folds: Folds, by prompt.

        Returns:
            The smallest strength (the strongest penalty) whose held-out loss is within one standard error of
            the best, and for each pair that it ranks whether it predicts the choice.
        """
        from sklearn.model_selection import GroupKFold

        inputs, first_chosen = self._build_inputs()
        splitter = GroupKFold(folds, shuffle=True, random_state=self.seed)
        # Held-out log-odds that the first is chosen, shape (s, n) for s strengths.
        log_odds = np.empty((len(STRENGTHS), len(inputs)))
        for train, test in splitter.split(inputs, first_chosen, self.groups):
            for index, strength in enumerate(STRENGTHS):
                log_odds[index, test] = inputs[test] @ self.fit(strength, train)
        margins = np.where(first_chosen == 1, log_odds, -log_odds)  # of the choice that was made
        losses = np.logaddexp(0, -margins)
        excess = losses - losses[losses.mean(axis=1).argmin()]  # over the best strength, pair by pair
        errors = excess.std(axis=1, ddof=1) / np.sqrt(excess.shape[1])
        # Strengths ascend, so the first that is good enough is the strongest penalty.
        index = int(np.flatnonzero(excess.mean(axis=1) <= errors)[0])
        ranked = margins[index] != 0
        return float(STRENGTHS[index]), margins[index][ranked] > 0

    def test(self, coefficients: Floats) -> Floats:
        """Test every feature, given those with larger coefficients.

        Args:
            coefficients: From `fit`, shape (f,).

        Returns:
            Two-sided p-values, shape (f,); 1 where the coefficient is 0.
        """
        inputs, first_chosen = self._build_inputs()
        order = np.argsort(-np.abs(coefficients), kind="stable")[: np.count_nonzero(coefficients)]
        p_values = np.ones(len(coefficients))
        p_values[order] = score_tests(inputs[:, order], first_chosen, self.groups)
        return p_values

    def resample(self, strength: float, number: int) -> Floats:
        """Return the coefficients of bootstrap samples of prompts, shape (number, f)."""
        rng = np.random.default_rng(self.seed + 1)
        prompts, prompt_of_pair = np.unique(self.groups, return_inverse=True)
        pairs_of_prompt = [np.flatnonzero(prompt_of_pair == i) for i in range(len(prompts))]
        coefficients = []
        for _ in range(number):
            sample = rng.integers(len(prompts), size=len(prompts))
            rows = np.concatenate([pairs_of_prompt[i] for i in sample])
            coefficients.append(self.fit(strength, rows))
        return np.stack(coefficients)
