"""Held-out pairs and the gold batch are set aside."""

from realignment.pipelines.gold.pipeline import create_pipeline

__all__ = ["create_pipeline"]
