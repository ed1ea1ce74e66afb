"""A classifier's probabilities, corrected on labels that it was not trained on: Platt or isotonic."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.float64]
Method = Literal["platt", "isotonic"]


class Calibration(Protocol):
    """Corrects probabilities, in order: a larger one never becomes smaller than a smaller one."""

    def __call__(self, probability: Probabilities) -> Probabilities:
        """Return corrected probabilities, strictly between 0 and 1, shape (n,)."""
        ...


@dataclass(frozen=True, slots=True)
class PlattCalibration:
    """σ(slope · log-odds + intercept) (Platt 1999): two numbers, for some hundred labels."""

    slope: float
    intercept: float

    def __call__(self, probability: Probabilities) -> Probabilities:
        """Return corrected probabilities, shape (n,)."""
        logits = self.slope * _log_odds(probability) + self.intercept
        return np.asarray(1 / (1 + np.exp(-logits)))


@dataclass(frozen=True, slots=True)
class IsotonicCalibration:
    """The non-decreasing step function that fits best (Zadrozny & Elkan 2002), for a thousand labels."""

    knots: tuple[float, ...]
    values: tuple[float, ...]

    def __call__(self, probability: Probabilities) -> Probabilities:
        """Return corrected probabilities, shape (n,)."""
        return np.asarray(np.interp(probability, self.knots, self.values))


def fit_calibration(method: Method, probability: Probabilities, truth: npt.NDArray[np.bool_]) -> Calibration:
    """Fit a calibration on probabilities that were predicted without knowing the truth (out of fold).

    No corrected probability is 0 or 1: n labels cannot tell that an error has less than 1/(n + 2).

    Args:
        method: platt or isotonic.
        probability: P(complies), shape (n,).
        truth: Whether it does, shape (n,).

    Returns:
        The calibration, which maps probabilities of shape (m,) to corrected ones.
    """
    if method == "platt":
        from sklearn.linear_model import LogisticRegression  # slow to import

        # Platt's soft targets: each of n labels of a class counts as (n + 1)/(n + 2) of it, and the rest of
        # the other class. A regression on hard labels does the same with each example twice, weighted.
        class_size = np.where(truth, truth.sum(), (~truth).sum())
        target = (class_size + 1) / (class_size + 2)  # (n,)
        log_odds = np.tile(_log_odds(probability), 2)[:, None]  # (2n, 1)
        classes = np.concatenate([truth, ~truth])  # (2n,)
        weights = np.concatenate([target, 1 - target])  # (2n,)
        model = LogisticRegression(C=np.inf).fit(log_odds, classes, sample_weight=weights)
        return PlattCalibration(float(model.coef_[0, 0]), float(model.intercept_[0]))
    from sklearn.isotonic import IsotonicRegression

    # Bounds as in Laplace's rule: n labels do not show an error rate below 1/(n + 2).
    edge = 1 / (len(truth) + 2)
    fitted = IsotonicRegression(y_min=edge, y_max=1 - edge, out_of_bounds="clip").fit(probability, truth)
    return IsotonicCalibration(
        tuple(map(float, fitted.X_thresholds_)), tuple(map(float, fitted.y_thresholds_))
    )


def _log_odds(probability: Probabilities) -> Probabilities:
    # Clipped, so that a probability of 0 or 1 has finite log-odds.
    clipped = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(clipped / (1 - clipped)))
