"""Files of pairs → what judging and triage leave."""

from kedro.pipeline import Node, Pipeline

from realignment.pipelines.judge_stream import nodes
from realignment.pipelines.judging.nodes import compare_policies
from realignment.pipelines.triage.pipeline import SPLITS

SETTINGS = ["intake", "judging", "triage", "streaming", "seed", "work_folder"]
TABLES = ["pairs", "judgments", "rejected_rows", *SPLITS]
REPORTS = ["intake_report", "oracle_report", "triage_report", "judging_manifest", "triage_manifest"]


def create_pipeline(**_: object) -> Pipeline:
    """pair_files, policy → every entry that the stages judging and triage write."""
    return Pipeline(
        [
            Node(
                nodes.judge_in_parts,
                ["pair_files", "policy", *(f"params:{name}" for name in SETTINGS)],
                [*TABLES, *REPORTS],
                name="judge_in_parts",
                tags=["oracle"],
            ),
            Node(compare_policies, ["old_policy", "policy"], "policy_diff", name="compare_policies"),
        ],
        namespace="judge_stream",
        prefix_datasets_with_namespace=False,
    )
