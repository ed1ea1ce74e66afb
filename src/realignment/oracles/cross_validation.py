"""Fit a text classifier, and measure it by cross-validation grouped by prompt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from realignment.oracles.calibration import Method, fit_calibration
from realignment.oracles.classifier import TEMPLATE, ClassifierError, ClassifierOracle, build_pipeline, render
from realignment.records import Exchange

Splits = list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]
"""Per fold: indices of the exchanges to train on, and of those held out."""


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """Predictions of a classifier on exchanges that it was not trained on.

    Attributes:
        n: Number of labelled exchanges.
        folds: Number of folds, made of prompts, so that both responses of a pair are in one fold.
        correct: Whether each held-out verdict was right, shape (n,).
        raw: P(complies) by the classifier trained without the exchange's fold, shape (n,).
        calibrated: The same, corrected by a calibration that was fitted without its fold, shape (n,).
        fold: Index of each exchange's fold, from 0, shape (n,).
    """

    n: int
    folds: int
    correct: npt.NDArray[np.bool_]
    raw: npt.NDArray[np.float64]
    calibrated: npt.NDArray[np.float64]
    fold: npt.NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """Share of right verdicts, in [0, 1]."""
        return float(self.correct.mean())


def fit_classifier(
    exchanges: Sequence[Exchange],
    labels: Sequence[bool],
    *,
    folds: int,
    seed: int,
    build: Callable[[int], Any] = build_pipeline,
    template: str = TEMPLATE,
    calibration: Method | None = None,
) -> tuple[ClassifierOracle, CrossValidation]:
    """Fit a classifier on all labelled exchanges, and measure it by cross-validation grouped by prompt.

    Args:
        exchanges: Labelled exchanges, n of them.
        labels: Whether each complies, n.
        folds: Number of folds of the cross-validation.
        seed: Seed of the folds and of the pipeline.
        build: Returns an unfitted pipeline, given the seed.
        template: Text of an exchange for the classifier.
        calibration: How its probabilities are corrected; None: not at all.

    Returns:
        The classifier, and its predictions on held-out folds.

    Raises:
        ClassifierError: Too few prompts with a complying, or with a violating, response for the folds.
    """
    validation = validate_classifier(
        exchanges, labels, folds=folds, seed=seed, build=build, template=template, calibration=calibration
    )
    oracle = fit_uncalibrated(exchanges, labels, folds=folds, seed=seed, build=build, template=template)
    if calibration is None:
        return oracle, validation
    corrected = fit_calibration(calibration, validation.raw, np.asarray(labels, dtype=bool))
    texts = [render(exchange, template) for exchange in exchanges]
    held_out = dict(zip(texts, map(float, validation.raw), strict=True))
    return replace(oracle, calibration=corrected, held_out=held_out), validation


def fit_uncalibrated(
    exchanges: Sequence[Exchange],
    labels: Sequence[bool],
    *,
    folds: int,
    seed: int,
    build: Callable[[int], Any] = build_pipeline,
    template: str = TEMPLATE,
) -> ClassifierOracle:
    """Fit a classifier on all labelled exchanges, and measure nothing.

    Args:
        exchanges: Labelled exchanges, n of them.
        labels: Whether each complies, n.
        folds: Number of folds that it could be measured by; what cannot be measured is not fitted.
        seed: Seed of the pipeline.
        build: Returns an unfitted pipeline, given the seed.
        template: Text of an exchange for the classifier.

    Returns:
        The classifier.

    Raises:
        ClassifierError: Too few prompts with a complying, or with a violating, response for the folds.
    """
    truth = np.asarray(labels, dtype=bool)
    split_by_prompt(exchanges, truth, folds=folds, seed=seed)
    texts = [render(exchange, template) for exchange in exchanges]
    return ClassifierOracle(build(seed).fit(texts, truth), template=template)


def validate_classifier(
    exchanges: Sequence[Exchange],
    labels: Sequence[bool],
    *,
    folds: int,
    seed: int,
    build: Callable[[int], Any] = build_pipeline,
    template: str = TEMPLATE,
    calibration: Method | None = None,
) -> CrossValidation:
    """Measure a classifier by cross-validation grouped by prompt: one fit per fold, none on everything.

    Args:
        exchanges: Labelled exchanges, n of them.
        labels: Whether each complies, n.
        folds: Number of folds.
        seed: Seed of the folds and of the pipeline.
        build: Returns an unfitted pipeline, given the seed.
        template: Text of an exchange for the classifier.
        calibration: How its probabilities are corrected; None: not at all.

    Returns:
        Predictions on held-out folds.

    Raises:
        ClassifierError: Too few prompts with a complying, or with a violating, response for the folds.
    """
    truth = np.asarray(labels, dtype=bool)
    splits = split_by_prompt(exchanges, truth, folds=folds, seed=seed)
    texts = np.array([render(exchange, template) for exchange in exchanges], dtype=object)
    raw = np.empty(len(texts))
    for training, held_out_fold in splits:
        pipeline = build(seed).fit(list(texts[training]), truth[training])
        raw[held_out_fold] = pipeline.predict_proba(list(texts[held_out_fold]))[:, 1]
    return cross_validate(raw, truth, splits, calibration)


def split_by_prompt(
    exchanges: Sequence[Exchange], truth: npt.NDArray[np.bool_], *, folds: int, seed: int
) -> Splits:
    """Split exchanges into folds by prompt, with both classes in the training part of every fold.

    Args:
        exchanges: Labelled exchanges, n of them.
        truth: Whether each complies, shape (n,).
        folds: Number of folds.
        seed: Seed of the shuffling.

    Returns:
        Indices per fold.

    Raises:
        ClassifierError: Too few prompts with a complying, or with a violating, response.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    groups = [exchange.prompt for exchange in exchanges]
    # Folds are made of prompts, so both classes are in every training part if both have prompts enough.
    prompts: dict[bool, set[str]] = {True: set(), False: set()}
    for group, label in zip(groups, truth, strict=True):
        prompts[bool(label)].add(group)
    rarest = min(map(len, prompts.values()))
    if rarest < folds:
        raise ClassifierError(
            f"The classifier needs complying responses to at least {folds} prompts and violating ones to "
            f"{folds} to be trained and cross-validated; the rarer kind has {rarest} prompts, of "
            f"{len(truth)} labelled responses in all. Label more, or lower `evaluation.folds` (of the "
            "judge) or `classifier.folds` (of the oracle)."
        )
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros(len(truth)), truth, groups))


def cross_validate(
    raw: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_], splits: Splits, calibration: Method | None
) -> CrossValidation:
    """Compare held-out probabilities with the truth; each fold is calibrated on the other folds.

    Args:
        raw: P(complies) by the classifier trained without the exchange's fold, shape (n,).
        truth: Whether each exchange complies, shape (n,).
        splits: Indices per fold.
        calibration: How the probabilities are corrected; None: not at all.

    Returns:
        The predictions, raw and calibrated.
    """
    calibrated = raw.copy()
    fold = np.empty(len(raw), dtype=np.int64)
    for number, (training, held_out) in enumerate(splits):
        fold[held_out] = number
        if calibration is not None:
            correct = fit_calibration(calibration, raw[training], truth[training])
            calibrated[held_out] = correct(raw[held_out])
    is_correct = (calibrated >= 0.5) == truth
    return CrossValidation(len(truth), len(splits), is_correct, raw, calibrated, fold)
