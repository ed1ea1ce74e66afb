"""Any two models are compared, without training."""

from realignment.pipelines.evaluate.pipeline import create_pipeline

__all__ = ["create_pipeline"]
