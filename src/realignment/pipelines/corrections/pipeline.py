"""PUNISH pairs → candidates → verified corrections → corrected pairs."""

from kedro.pipeline import Node, Pipeline

from realignment.pipelines.corrections import nodes

TRIAGED = ["invert_pairs", "punish_pairs", "retain_pairs", "triage_manifest"]


def create_pipeline(**_: object) -> Pipeline:
    """punish_pairs, params:model → corrected_pairs, correction_leakage."""
    return Pipeline(
        [
            Node(
                nodes.write_candidates,
                [
                    "punish_pairs",
                    "pairs",
                    "triage_manifest",
                    "written_corrections",
                    "policy",
                    "params:model",
                    "params:judging",
                    "params:corrections",
                    "params:seed",
                ],
                "correction_candidates",
                name="write_candidates",
                tags=["gpu"],
            ),
            Node(
                nodes.verify_candidates,
                [
                    "correction_candidates",
                    "punish_pairs",
                    "pairs",
                    "triage_manifest",
                    "policy",
                    "params:judging",
                    "params:corrections",
                    "params:seed",
                ],
                "verified_corrections",
                name="verify_candidates",
                tags=["oracle"],
            ),
            Node(
                nodes.correct_pairs,
                [*TRIAGED, "verified_corrections"],
                ["corrected_pairs", "corrections_report", "corrections_manifest"],
                name="correct_pairs",
            ),
            *measure_corrections(),
        ],
        namespace="corrections",
        prefix_datasets_with_namespace=False,
    )


def measure_corrections() -> list[Node]:
    """verified_corrections, human_verdicts → correction_leakage: again whenever people have judged some."""
    return [
        Node(
            nodes.measure_leakage,
            ["verified_corrections", "human_verdicts", "policy", "params:seed"],
            "correction_leakage",
            name="measure_leakage",
        ),
        Node(nodes.draw_leakage, "correction_leakage", "correction_leakage_figure", name="draw_leakage"),
    ]
