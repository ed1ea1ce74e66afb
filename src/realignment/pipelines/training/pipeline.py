"""Weighted pairs → the realigned model."""

from kedro.pipeline import Node, Pipeline

from realignment.pipelines.impact.pipeline import LOADED
from realignment.pipelines.training import nodes


def create_pipeline(**_: object) -> Pipeline:
    """training_pairs, impact_weights, reference_model → realigned_model."""
    return Pipeline(
        [
            Node(
                nodes.train_model,
                [
                    "training_pairs",
                    "gold_batch",
                    "impact_weights",
                    "impact_manifest",
                    *LOADED,
                    "params:work_folder",
                ],
                ["realigned_model", "training_history", "training_manifest"],
                name="train_model",
                tags=["gpu"],
            ),
            Node(
                nodes.draw_training_curves, "training_history", "training_figure", name="draw_training_curves"
            ),
        ],
        namespace="training",
        prefix_datasets_with_namespace=False,
    )
