"""Methods are trained over seeds and compared."""

from realignment.pipelines.baselines.pipeline import create_pipeline

__all__ = ["create_pipeline"]
