"""Pairs are cleaned and judged under the new policy."""

from realignment.pipelines.judging.pipeline import create_pipeline

__all__ = ["create_pipeline"]
