"""A text classifier that judges is trained from labels."""

from realignment.pipelines.classifier.pipeline import create_pipeline

__all__ = ["create_pipeline"]
