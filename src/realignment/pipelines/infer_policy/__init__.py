"""An undocumented policy is inferred from the choices made under it."""

from realignment.pipelines.infer_policy.pipeline import create_pipeline

__all__ = ["create_pipeline"]
