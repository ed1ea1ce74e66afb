"""PUNISH pairs get corrections, where some can be had."""

from realignment.pipelines.corrections.pipeline import create_pipeline

__all__ = ["create_pipeline"]
