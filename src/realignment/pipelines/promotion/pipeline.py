"""Evaluation → gate, registry, summary, report."""

from kedro.pipeline import Node, Pipeline

from realignment.pipelines.promotion import nodes

REPORTED = [
    "gate_report", "registered_model", "policy_diff", "triage_report", "triage_flow", "rejected_rows",
    "oracle_report", "audit_report", "triage_manifest", "corrections_report", "correction_leakage",
    "correction_leakage_figure", "impact_report", "impact_figure", "training_figure", "evaluation_table",
    "evaluation_figure", "evaluation_judge", "win_rates", "parameters",
]  # fmt: skip
"""Catalog entries that the page of a run shows: fields of `reports.RunResults` by the same names."""


def create_pipeline(**_: object) -> Pipeline:
    """evaluation_table, realigned_model → gate_report, registered_model, summary, report."""
    return Pipeline(
        [
            Node(
                nodes.pass_gate,
                [
                    "evaluation_table",
                    "evaluation_judge",
                    "responses",
                    "policy",
                    "audit_report",
                    "triage_manifest",
                    "params:audit",
                    "params:promotion",
                ],
                "gate_report",
                name="pass_gate",
            ),
            Node(
                nodes.register_model,
                [
                    "realigned_model",
                    "gate_report",
                    "evaluation_table",
                    "evaluation_judge",
                    "responses",
                    "policy",
                    "training_manifest",
                    "params:promotion",
                ],
                "registered_model",
                name="register_model",
            ),
            Node(
                nodes.summarize_run,
                [
                    "evaluation_table",
                    "evaluation_judge",
                    "triage_report",
                    "oracle_report",
                    "gate_report",
                    "registered_model",
                ],
                ["summary", "run_summary"],
                name="summarize_run",
            ),
            Node(
                nodes.write_report,
                {"summary": "run_summary"}
                | {
                    name: name
                    for name in ("policy", "old_policy", "training_manifest", "responses", *REPORTED)
                },
                ["report", "run_report"],
                name="write_report",
            ),
            # The summary and the report are inputs so that it runs last: nothing is lost by its error.
            Node(
                nodes.enforce_gate,
                ["gate_report", "run_summary", "run_report", "params:promotion"],
                None,
                name="enforce_gate",
            ),
        ],
        namespace="promotion",
        prefix_datasets_with_namespace=False,
    )
