"""Train a classifier that judges: a pipeline is fitted, a sequence classifier only calibrated."""

from collections.abc import Sequence

import numpy as np

from realignment.oracles.calibration import fit_calibration
from realignment.oracles.cross_validation import (
    CrossValidation,
    cross_validate,
    fit_classifier,
    split_by_prompt,
)
from realignment.oracles.loading import fetch_sequence_classifier
from realignment.oracles.trained_classifier import TrainedClassifier, import_builder
from realignment.parameters import ClassifierParameters
from realignment.policy import Policy
from realignment.records import Exchange


def train_judge(
    exchanges: Sequence[Exchange],
    labels: Sequence[bool],
    policy: Policy,
    parameters: ClassifierParameters,
    *,
    seed: int,
) -> tuple[TrainedClassifier, CrossValidation]:
    """Train a classifier on labelled exchanges, calibrate it, and cross-validate it.

    Args:
        exchanges: Labelled exchanges, n of them.
        labels: Whether each complies, n.
        policy: The policy that the labels were given under.
        parameters: Kind of classifier, folds and calibration.
        seed: Seed of the folds and of the pipeline.

    Returns:
        The classifier, and its predictions on folds of prompts that it was not trained on.

    Raises:
        ClassifierError: Too few labels, or a model that is no classifier or has other labels.
    """
    import sklearn
    import transformers

    versions = {"scikit-learn": sklearn.__version__, "transformers": transformers.__version__}
    method = parameters.calibration
    if parameters.sequence_classifier is None:
        oracle, validation = fit_classifier(
            exchanges,
            labels,
            folds=parameters.folds,
            seed=seed,
            build=import_builder(parameters.pipeline),
            template=parameters.template,
            calibration=method,
        )
        trained = TrainedClassifier(oracle, None, None, policy.full_name, versions, policy.fingerprint)
        return trained, validation
    # A sequence classifier is not trained here, so its own probabilities are out of fold already.
    truth = np.asarray(labels, dtype=bool)
    splits = split_by_prompt(exchanges, truth, folds=parameters.folds, seed=seed)
    raw = fetch_sequence_classifier(parameters.sequence_classifier).predict_probability(exchanges)
    calibration = fit_calibration(method, raw, truth)
    settings = parameters.sequence_classifier
    trained = TrainedClassifier(None, settings, calibration, policy.full_name, versions, policy.fingerprint)
    return trained, cross_validate(raw, truth, splits, method)
