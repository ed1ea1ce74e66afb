"""Saved classifiers of `train_classifier`: what a file holds, and how it is read."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realignment.oracles.calibration import Calibration
from realignment.oracles.classifier import ClassifierError, ClassifierOracle
from realignment.parameters import TextClassifierParameters
from realignment.tracking.versions import find_newest_version


@dataclass(frozen=True, slots=True)
class TrainedClassifier:
    """What `train_classifier` saves. It is a pickle: open only files that you trust.

    Attributes:
        oracle: The calibrated pipeline; None where a sequence classifier was calibrated.
        sequence_classifier: Parameters of that sequence classifier; None where a pipeline was trained.
        calibration: Calibration of the sequence classifier.
        policy: Name and version of the policy that the labels were given under.
        libraries: Versions of the libraries; another scikit-learn may not read the file.
        policy_digest: Digest of the policy's text then: it may be edited and keep its version.
    """

    oracle: ClassifierOracle | None
    sequence_classifier: TextClassifierParameters | None
    calibration: Calibration | None
    policy: str
    libraries: dict[str, str]
    policy_digest: str


def is_trained(source: Path) -> bool:
    """Return whether a source names a file of `train_classifier`, and not a folder or Hub id of a model."""
    return source.suffix in (".joblib", ".pkl", ".pickle")


def read_trained_classifier(path: Path) -> TrainedClassifier:
    """Read a classifier that `train_classifier` saved.

    Args:
        path: A file, or the folder of its versions, of which the newest is read.

    Returns:
        The classifier.

    Raises:
        ClassifierError: There is none, or the file holds something else.
    """
    import joblib
    import sklearn

    path = find_newest_version(path)
    if not path.is_file():
        raise ClassifierError(
            f"No classifier at {path}. Train one (`--pipelines train_classifier`), or set "
            "`judging.classifier.source` to a file of it, or to a folder or Hub id of a sequence classifier."
        )
    try:
        trained = joblib.load(path)
    except Exception as error:  # a pickle may raise anything
        raise ClassifierError(
            f"{path} cannot be read as a classifier of `train_classifier` (here is scikit-learn "
            f"{sklearn.__version__}): {type(error).__name__}: {error}. Train it again."
        ) from error
    if not isinstance(trained, TrainedClassifier):
        raise ClassifierError(
            f"{path} holds a {type(trained).__name__}, expected what `train_classifier` made: train it again."
        )
    try:
        trained.policy_digest  # noqa: B018  # slots: a field that an earlier version did not have is missing
    except AttributeError as error:
        raise ClassifierError(
            f"{path} was made by an earlier version of this package: train it again."
        ) from error
    return trained


def import_builder(path: str) -> Callable[[int], Any]:
    """Import the function that builds an unfitted pipeline.

    Args:
        path: ``package.module:function``.

    Returns:
        The function, which takes a seed.

    Raises:
        ClassifierError: It cannot be imported.
    """
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
    except (ImportError, AttributeError) as error:
        raise ClassifierError(
            f"`classifier.pipeline` is {path!r}, which cannot be imported ({error}); expected "
            "'package.module:function', a function of a seed that returns an unfitted scikit-learn pipeline."
        ) from error
