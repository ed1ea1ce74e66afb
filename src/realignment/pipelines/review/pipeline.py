"""Triaged pairs → forms for people; their verdicts → a table that an oracle and the audit read."""

from kedro.pipeline import Node, Pipeline

from realignment.pipelines.audit import nodes as audit
from realignment.pipelines.audit.pipeline import TRIAGED
from realignment.pipelines.corrections.pipeline import measure_corrections
from realignment.pipelines.review import nodes

FORMS = [
    "review_table",
    "review_json_lines",
    "review_label_studio",
    "review_label_studio_config",
    "review_argilla",
    "review_guidelines",
]


def create_export(**_: object) -> Pipeline:
    """The splits → review_tasks and its forms. The audit sample is drawn as the pipeline `audit` draws it."""
    return Pipeline(
        [
            Node(
                audit.draw_people_sample,
                TRIAGED | {"parameters": "params:audit", "seed": "params:seed"},
                "review_sample",
                name="draw_people_sample",
            ),
            Node(
                nodes.list_review_tasks,
                [
                    "review_pairs",
                    "review_sample",
                    "punish_pairs",
                    "verified_corrections",
                    "triage_manifest",
                    "policy",
                    "params:review",
                    "params:seed",
                ],
                "review_tasks",
                name="list_review_tasks",
            ),
            Node(nodes.write_forms, ["review_tasks", "policy"], FORMS, name="write_forms"),
        ],
        namespace="review",
        prefix_datasets_with_namespace=False,
    )


def create_import(**_: object) -> Pipeline:
    """What people handed back → human_verdicts, review_report; what they say of corrections, measured."""
    return Pipeline(
        [
            Node(
                nodes.import_verdicts,
                [
                    "returned_verdicts",
                    "pairs",
                    "verified_corrections",
                    "policy",
                    "params:review",
                    "params:seed",
                ],
                ["human_verdicts", "review_report"],
                name="import_verdicts",
            ),
            *measure_corrections(),
        ],
        namespace="review",
        prefix_datasets_with_namespace=False,
    )
