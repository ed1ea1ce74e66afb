"""Judged and triaged pairs → how wrong the oracle is."""

from kedro.pipeline import Node, Pipeline

from realignment.pipelines.audit import nodes
from realignment.pipelines.triage.pipeline import SPLITS

TABLES = ["audit_metrics", "audit_confusion", "audit_reliability", "audit_history"]
FIGURES = ["audit_scores_figure", "audit_confusion_figure", "audit_reliability_figure", "audit_growth_figure"]
TRIAGED = {name: name for name in (*SPLITS, "triage_manifest")}
"""Argument → catalog entry: the nodes take the splits together, as keyword arguments."""


def create_pipeline(**_: object) -> Pipeline:
    """The splits, the truth → audit_report and its figures."""
    return Pipeline(
        [
            Node(
                nodes.draw_audit_sample,
                TRIAGED | {"parameters": "params:audit", "seed": "params:seed"},
                "audit_sample",
                name="draw_audit_sample",
            ),
            Node(
                nodes.judge_audit_sample,
                ["audit_sample", "judgments", "policy", "params:judging", "params:audit"],
                "audit_judgments",
                name="judge_audit_sample",
                tags=["oracle"],
            ),
            Node(
                nodes.measure_audit,
                {
                    "judgments": "judgments",
                    "audit_sample": "audit_sample",
                    "audit_judgments": "audit_judgments",
                    "human_verdicts": "human_verdicts",
                    "policy": "policy",
                    "judging_parameters": "params:judging",
                    "parameters": "params:audit",
                    "seed": "params:seed",
                    **TRIAGED,
                },
                ["audited_pairs", *TABLES, "audit_report"],
                name="measure_audit",
            ),
            Node(nodes.draw_audit_figures, TABLES, FIGURES, name="draw_audit_figures"),
        ],
        namespace="audit",
        prefix_datasets_with_namespace=False,
    )
