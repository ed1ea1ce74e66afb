"""The stages judging and triage for a table that is larger than memory."""

from realignment.pipelines.judge_stream.pipeline import create_pipeline

__all__ = ["create_pipeline"]
