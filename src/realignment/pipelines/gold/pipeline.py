"""Splits → held-out pairs, gold batch, training pairs."""

from kedro.pipeline import Node, Pipeline

from realignment.pipelines.gold import nodes

TRIAGED = ["invert_pairs", "punish_pairs", "retain_pairs"]
MEASURED = ["oracle_report", "audit_report"]
CORRECTED = ["invert_pairs", "corrected_pairs", "retain_pairs"]
MANIFESTS = ["corrections_manifest", "triage_manifest"]
PARTS = ["held_out_pairs", "gold_batch", "training_pairs"]


def create_pipeline(**_: object) -> Pipeline:
    """The splits → three disjoint parts."""
    return Pipeline(
        [
            Node(
                nodes.draw_gold_batch,
                [*CORRECTED, *MANIFESTS, *MEASURED, "params:audit", "params:gold", "params:seed"],
                [*PARTS, "gold_manifest"],
                name="draw_gold_batch",
            ),
            Node(
                nodes.check_evaluation_prompts,
                ["evaluation_prompts", *PARTS, "params:evaluation"],
                None,
                name="check_evaluation_prompts",
            ),
            Node(
                nodes.check_attacks,
                [
                    "attacks",
                    "behaviours",
                    "evaluation_prompts",
                    *PARTS,
                    "labelled_answers",
                    "policy",
                    "params:judging",
                    "params:evaluation",
                ],
                None,
                name="check_attacks",
            ),
            Node(nodes.check_capability, ["params:evaluation"], None, name="check_capability"),
            Node(
                nodes.draw_triage_flow,
                [*TRIAGED, "review_pairs", *PARTS],
                "triage_flow",
                name="draw_triage_flow",
            ),
        ],
        namespace="gold",
        prefix_datasets_with_namespace=False,
    )
