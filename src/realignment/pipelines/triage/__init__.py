"""Judgments become one disposition per pair."""

from realignment.pipelines.triage.pipeline import create_pipeline

__all__ = ["create_pipeline"]
