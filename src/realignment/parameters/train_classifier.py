"""Every parameter, typed, checked before any node runs. Kedro builds them from `conf/*/parameters_*.yml`."""

from typing import Literal

from pydantic import Field

from realignment.parameters.base import ExchangeTemplate, Parameters
from realignment.parameters.oracles import TextClassifierParameters


class ClassifierParameters(Parameters):
    """How `train_classifier` makes a text classifier that judges."""

    pipeline: str = Field(
        "realignment.oracles.classifier:build_pipeline",
        pattern=r"^[\w.]+:\w+$",
        description="module:function that makes an unfitted scikit-learn pipeline over texts from a seed",
    )
    sequence_classifier: TextClassifierParameters | None = Field(
        None, description="Calibrate this sequence classifier instead of training a pipeline"
    )
    template: ExchangeTemplate = Field(
        "topic_{domain} {response}",
        description="What the pipeline reads: {prompt}, {response}, {domain}",
    )
    calibration: Literal["platt", "isotonic"] = Field(
        "platt", description="platt: two numbers; isotonic: any rising curve, for a thousand labels or more"
    )
    folds: int = Field(5, ge=2, description="Of the cross-validation, by prompt")
