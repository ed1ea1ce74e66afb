"""The model is trained with the hybrid objective."""

from realignment.pipelines.training.pipeline import create_pipeline

__all__ = ["create_pipeline"]
