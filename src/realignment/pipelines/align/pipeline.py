"""Old labels → a reference model."""

from kedro.pipeline import Node, Pipeline

from realignment.pipelines.align import nodes
from realignment.pipelines.judging.nodes import read_pairs
from realignment.pipelines.model.nodes import fetch_reference_model


def create_pipeline(**_: object) -> Pipeline:
    """raw_pairs, base model → aligned_model, registered; align_table: whether it prefers the old labels."""
    return Pipeline(
        [
            Node(
                read_pairs,
                ["raw_pairs", "params:intake", "params:seed"],
                ["align_pairs", "align_rejected_rows", "align_intake_report"],
                name="read_old_pairs",
            ),
            Node(
                nodes.hold_out_old_pairs,
                ["align_pairs", "params:align", "params:seed"],
                ["align_training_pairs", "align_held_out_pairs"],
                name="hold_out_old_pairs",
            ),
            Node(fetch_reference_model, "params:model", "base_model", name="fetch_base_model"),
            Node(
                nodes.align_model,
                [
                    "align_training_pairs",
                    "base_model",
                    "params:model",
                    "params:align",
                    "params:seed",
                    "params:work_folder",
                ],
                ["aligned_model", "align_history"],
                name="align_model",
                tags=["gpu"],
            ),
            Node(
                nodes.score_old_labels,
                [
                    "align_held_out_pairs",
                    "base_model",
                    "aligned_model",
                    "params:model",
                    "params:align",
                    "params:evaluation",
                ],
                "align_scores",
                name="score_old_labels",
                tags=["gpu"],
            ),
            Node(
                nodes.tabulate_alignment,
                ["align_scores", "params:seed"],
                "align_table",
                name="tabulate_alignment",
            ),
            Node(
                nodes.register_aligned_model,
                ["aligned_model", "base_model", "old_policy", "params:align"],
                "registered_reference",
                name="register_aligned_model",
            ),
        ],
        namespace="align",
        prefix_datasets_with_namespace=False,
    )
