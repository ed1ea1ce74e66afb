"""The base model becomes a local folder."""

from realignment.pipelines.model.pipeline import create_pipeline

__all__ = ["create_pipeline"]
