"""How wrong the oracle is: a sample of the judged pairs against the truth."""

from realignment.pipelines.audit.pipeline import create_pipeline

__all__ = ["create_pipeline"]
