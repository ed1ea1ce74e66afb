"""A classifier that judges: kept, read back, and measured on prompts that it did not know."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realignment.oracles.calibration import Calibration
from realignment.oracles.classifier import ClassifierError, ClassifierOracle
from realignment.parameters import TextClassifierParameters


@dataclass(frozen=True, slots=True)
class TrainedClassifier:
    """What `train_classifier` keeps. It is a pickle: open only files that you trust.

    Attributes:
        oracle: The calibrated pipeline; None where a sequence classifier was calibrated.
        sequence_classifier: That sequence classifier.
        calibration: Its calibration.
        policy: Name and version that the labels were given under.
        libraries: Versions that it was made with; another scikit-learn may not read it.
        policy_digest: Of what the policy said then: it may be edited, and keep its version.
    """

    oracle: ClassifierOracle | None
    sequence_classifier: TextClassifierParameters | None
    calibration: Calibration | None
    policy: str
    libraries: dict[str, str]
    policy_digest: str


def is_trained(source: Path) -> bool:
    """Whether a source names what `train_classifier` makes, and not a folder or Hub id of a model."""
    return source.suffix in (".joblib", ".pkl", ".pickle")


def read_trained(path: Path) -> TrainedClassifier:
    """A file of `train_classifier`, or the folder of its versions: the newest.

    Raises:
        ClassifierError: There is none, or it is something else.
    """
    import joblib
    import sklearn

    if path.is_dir():
        path = max(path.glob(f"*/{path.name}"), default=path / "…")
    if not path.is_file():
        raise ClassifierError(
            f"No classifier at {path}. Train one (`--pipelines train_classifier`), or set "
            "`judging.classifier.source` to a file of it, or to a folder or Hub id of a sequence classifier."
        )
    try:
        found = joblib.load(path)
    except Exception as error:  # a pickle may raise anything
        raise ClassifierError(
            f"{path} cannot be read as a classifier of `train_classifier` (here is scikit-learn "
            f"{sklearn.__version__}): {type(error).__name__}: {error}. Train it again."
        ) from error
    if not isinstance(found, TrainedClassifier):
        raise ClassifierError(
            f"{path} holds a {type(found).__name__}, expected what `train_classifier` made: train it again."
        )
    try:
        found.policy_digest  # noqa: B018  # slots: a field that an earlier version did not know is not there
    except AttributeError as error:
        raise ClassifierError(
            f"{path} was made by an earlier version of this package: train it again."
        ) from error
    return found


def import_builder(path: str) -> Callable[[int], Any]:
    """The function that makes an unfitted pipeline.

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
