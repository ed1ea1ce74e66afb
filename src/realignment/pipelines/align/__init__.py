"""M_ref is made by DPO on the old labels."""

from realignment.pipelines.align.pipeline import create_pipeline

__all__ = ["create_pipeline"]
