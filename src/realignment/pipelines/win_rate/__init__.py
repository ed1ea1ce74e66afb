"""Blind comparison of answers by people: `win_rate_export` writes forms, `win_rate_import` reads votes."""

from realignment.pipelines.win_rate.pipeline import create_export, create_import

__all__ = ["create_export", "create_import"]
