"""Conflicts → impact weights."""

from kedro.pipeline import Node, Pipeline

from realignment.pipelines.impact import nodes

LOADED = ["reference_model", "params:model", "params:loss", "params:training", "params:impact", "params:seed"]
"""The reference model, and what decides how pairs are laid out and scored; training reads the same."""


def create_pipeline(**_: object) -> Pipeline:
    """training_pairs, gold_batch, reference_model → impact_weights."""
    return Pipeline(
        [
            Node(
                nodes.weigh_conflicts,
                [
                    "training_pairs",
                    "gold_batch",
                    "gold_manifest",
                    *LOADED,
                ],
                ["impact_weights", "impact_report", "impact_manifest"],
                name="weigh_conflicts",
                tags=["gpu"],
            ),
            Node(nodes.draw_impact_weights, "impact_weights", "impact_figure", name="draw_impact_weights"),
        ],
        namespace="impact",
        prefix_datasets_with_namespace=False,
    )
