"""Labels → a classifier that judges."""

from realignment.pipelines.train_classifier.pipeline import create_pipeline

__all__ = ["create_pipeline"]
