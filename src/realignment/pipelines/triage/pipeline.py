"""Judgments → dispositions."""

from kedro.pipeline import Node, Pipeline

from realignment.pipelines.triage import nodes

SPLITS = ["invert_pairs", "punish_pairs", "retain_pairs", "review_pairs"]


def create_pipeline(**_: object) -> Pipeline:
    """pairs, judgments → the four splits."""
    return Pipeline(
        [
            Node(
                nodes.triage_pairs,
                ["pairs", "judgments", "judging_manifest", "params:triage"],
                [*SPLITS, "triage_manifest"],
                name="triage_pairs",
            ),
            Node(nodes.report_triage, [*SPLITS, "params:triage"], "triage_report", name="report_triage"),
        ],
        namespace="triage",
        prefix_datasets_with_namespace=False,
    )
