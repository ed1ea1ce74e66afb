"""Before and after are compared."""

from realignment.pipelines.evaluation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
