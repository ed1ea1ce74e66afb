"""Labels → a classifier that judges: a pipeline is trained, a sequence classifier calibrated as it is."""

from collections.abc import Sequence

import numpy as np

from realignment.oracles.calibration import fit_calibration
from realignment.oracles.classifier import CrossValidation, cross_validate, split_by_prompt, train_classifier
from realignment.oracles.loading import load_sequence
from realignment.oracles.trained_classifier import TrainedClassifier, import_builder
from realignment.parameters import ClassifierParameters
from realignment.policy import Policy
from realignment.records import Exchange


def teach(
    exchanges: Sequence[Exchange],
    labels: Sequence[bool],
    policy: Policy,
    parameters: ClassifierParameters,
    *,
    seed: int,
) -> tuple[TrainedClassifier, CrossValidation]:
    """A calibrated classifier, and what it said of every exchange in a fold that did not know its prompt.

    Raises:
        ClassifierError: Too few labels, or a model that is no classifier or has other labels.
    """
    import sklearn
    import transformers

    versions = {"scikit-learn": sklearn.__version__, "transformers": transformers.__version__}
    method = parameters.calibration
    if parameters.sequence_classifier is None:
        oracle, validation = train_classifier(
            exchanges,
            labels,
            folds=parameters.folds,
            seed=seed,
            build=import_builder(parameters.pipeline),
            template=parameters.template,
            calibration=method,
        )
        kept = TrainedClassifier(oracle, None, None, policy.full_name, versions, policy.fingerprint)
        return kept, validation
    truth = np.asarray(labels, dtype=bool)
    splits = split_by_prompt(exchanges, truth, folds=parameters.folds, seed=seed)
    raw = load_sequence(parameters.sequence_classifier).probability(exchanges)
    calibration = fit_calibration(method, raw, truth)
    settings = parameters.sequence_classifier
    trained = TrainedClassifier(None, settings, calibration, policy.full_name, versions, policy.fingerprint)
    return trained, cross_validate(raw, truth, splits, method)
