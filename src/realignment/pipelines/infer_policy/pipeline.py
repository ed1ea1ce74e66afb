"""Choices → principles → a policy document → its difference to the new policy."""

from kedro.pipeline import Node, Pipeline

from realignment.pipelines.infer_policy import nodes
from realignment.pipelines.judging.nodes import read_pairs


def create_pipeline(**_: object) -> Pipeline:
    """raw_pairs, policy → principles, inferred_policy, inferred_policy_diff."""
    return Pipeline(
        [
            Node(
                read_pairs,
                ["raw_pairs", "params:intake", "params:seed"],
                ["choice_pairs", "choice_rejected_rows", "choice_intake_report"],
                name="read_choices",
            ),
            Node(
                nodes.explain_choices,
                ["choice_pairs", "params:principles", "params:seed"],
                ["principles", "principles_report"],
                name="explain_choices",
                tags=["oracle"],
            ),
            Node(
                nodes.write_inferred_policy,
                ["principles", "choice_pairs", "params:principles"],
                "inferred_policy",
                name="write_inferred_policy",
            ),
            Node(
                nodes.compare_inferred_policy,
                ["inferred_policy", "policy"],
                "inferred_policy_diff",
                name="compare_inferred_policy",
            ),
            Node(nodes.draw_principles, "principles", "principles_figure", name="draw_principles"),
        ],
        namespace="infer_policy",
        prefix_datasets_with_namespace=False,
    )
