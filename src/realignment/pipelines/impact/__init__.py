"""Conflicts get their alignment impact weights."""

from realignment.pipelines.impact.pipeline import create_pipeline

__all__ = ["create_pipeline"]
