"""Triaged pairs → every method with every seed → one comparison."""

from kedro.pipeline import Node, Pipeline

from realignment.pipelines.baselines import nodes
from realignment.pipelines.gold.pipeline import CORRECTED

CELLS = ["baseline_items", "baseline_cells", "baseline_judges"]


def create_pipeline(**_: object) -> Pipeline:
    """The splits → baseline_items, baseline_cells → baseline_table, baseline_report."""
    sections = ["loss", "impact", "gold", "training"]
    return Pipeline(
        [
            Node(
                nodes.run_cells,
                [
                    *CORRECTED,
                    "corrections_manifest",
                    "evaluation_prompts",
                    "labelled_answers",
                    "policy",
                    "reference_model",
                    "params:model",
                    "params:judging",
                    "params:evaluation",
                    *(f"params:{section}" for section in sections),
                    "params:method",
                    "params:baselines",
                    "params:work_folder",
                    "params:seed",
                ],
                CELLS,
                name="run_cells",
                tags=["gpu"],
            ),
            Node(
                nodes.compare_methods,
                [*CELLS, "params:baselines"],
                ["baseline_table", "baseline_page", "baseline_report", "baseline_figure"],
                name="compare_methods",
            ),
        ],
        namespace="baselines",
        prefix_datasets_with_namespace=False,
    )
