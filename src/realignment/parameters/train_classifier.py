"""Parameters of `train_classifier`: how a text classifier that judges is trained."""

from typing import Literal

from pydantic import Field

from realignment.parameters.base import ExchangeTemplate, Parameters
from realignment.parameters.oracles import TextClassifierParameters


class ClassifierParameters(Parameters):
    """Training of a text classifier that judges, by `train_classifier`."""

    pipeline: str = Field(
        "realignment.oracles.classifier:build_pipeline",
        pattern=r"^[\w.]+:\w+$",
        description="module:function that takes a seed and returns an unfitted scikit-learn pipeline over "
        "texts",
    )
    sequence_classifier: TextClassifierParameters | None = Field(
        None, description="Calibrate this sequence classifier instead of training a pipeline"
    )
    template: ExchangeTemplate = Field(
        "topic_{domain} {response}",
        description="Text that the pipeline reads: {prompt}, {response}, {domain}",
    )
    calibration: Literal["platt", "isotonic"] = Field(
        "platt",
        description="platt: a logistic curve of two numbers; isotonic: any rising curve, for a thousand "
        "labels or more",
    )
    folds: int = Field(5, ge=2, description="Folds of the cross-validation, split by prompt")
