"""The gate decides, the registry records, the report tells."""

from realignment.pipelines.promotion.pipeline import create_pipeline

__all__ = ["create_pipeline"]
