"""The round trip to people: `review_export` writes forms, `review_import` reads verdicts."""

from realignment.pipelines.review.pipeline import create_export, create_import

__all__ = ["create_export", "create_import"]
