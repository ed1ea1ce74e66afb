"""Pairs → judgments."""

from kedro.pipeline import Node, Pipeline

from realignment.pipelines.judging import nodes


def create_pipeline(**_: object) -> Pipeline:
    """raw_pairs, policy → pairs, judgments."""
    return Pipeline(
        [
            Node(
                nodes.read_graded_pairs,
                ["raw_pairs", "policy", "params:intake", "params:seed"],
                ["pairs", "rejected_rows", "intake_report"],
                name="read_pairs",
            ),
            Node(nodes.compare_policies, ["old_policy", "policy"], "policy_diff", name="compare_policies"),
            Node(
                nodes.judge_pairs,
                ["pairs", "policy", "params:judging", "params:seed"],
                ["judgments", "oracle_report", "judging_manifest"],
                name="judge_pairs",
                tags=["oracle"],
            ),
        ],
        namespace="judging",
        prefix_datasets_with_namespace=False,
    )
