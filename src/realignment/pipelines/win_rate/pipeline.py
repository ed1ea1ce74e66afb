"""Answers of both models → blind forms for people and their key; people's votes → win rates."""

from kedro.pipeline import Node, Pipeline

from realignment.pipelines.win_rate import nodes

FORMS = [
    "win_rate_table",
    "win_rate_json_lines",
    "win_rate_label_studio",
    "win_rate_label_studio_config",
    "win_rate_argilla",
    "win_rate_guidelines",
]


def create_export(**_: object) -> Pipeline:
    """The answers → win_rate_key, and forms that do not name the models."""
    return Pipeline(
        [
            Node(
                nodes.pair_answers,
                ["answers", "policy", "params:evaluation", "params:seed"],
                "win_rate_key",
                name="pair_answers",
            ),
            Node(
                nodes.write_comparison_forms,
                ["win_rate_key", "policy"],
                FORMS,
                name="write_comparison_forms",
            ),
        ],
        namespace="win_rate",
        prefix_datasets_with_namespace=False,
    )


def create_import(**_: object) -> Pipeline:
    """What people handed back, and the key → human_votes, human_win_rates."""
    return Pipeline(
        [
            Node(
                nodes.import_votes,
                [
                    "returned_votes",
                    "win_rate_key",
                    "policy",
                    "params:evaluation",
                    "params:review",
                    "params:seed",
                ],
                ["human_votes", "human_win_rates"],
                name="import_votes",
            )
        ],
        namespace="win_rate",
        prefix_datasets_with_namespace=False,
    )
