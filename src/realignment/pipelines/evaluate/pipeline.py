"""Two models → the evaluation table, by the nodes of the stage `evaluation`."""

from kedro.pipeline import Node, Pipeline, pipeline

from realignment.pipelines import evaluation
from realignment.pipelines.evaluate import nodes

SHARED = (
    "answer_prompts",
    "judge_answers",
    "compare_answers",
    "answer_attacks",
    "judge_attacks",
    "measure_capability",
    "draw_agreement",
)
"""Nodes of the stage `evaluation` that need no pairs and no training."""

RENAMED = {
    name: f"comparison_{name}"
    for name in (
        "answers",
        "responses",
        "evaluation_judge",
        "comparisons",
        "win_rates",
        "attack_answers",
        "attack_responses",
        "capability_scores",
        "evaluation_figure",
    )
}
"""Outputs of these nodes → the entries that keep them apart from those of a re-alignment."""


def create_pipeline(**_: object) -> Pipeline:
    """params:models → comparison_evaluation_table, comparison_report."""
    return Pipeline(
        [
            *_reuse_evaluation().nodes,
            Node(
                nodes.fetch_models,
                ["params:models", "params:model", "params:evaluation"],
                ["comparison_before", "comparison_after"],
                name="fetch_models",
            ),
            Node(
                nodes.collect_prompts,
                ["evaluation_prompts", "labelled_answers", "policy", "params:judging", "params:evaluation"],
                "comparison_prompts_to_answer",
                name="collect_prompts",
            ),
            Node(
                nodes.collect_attacks,
                [
                    "attacks",
                    "behaviours",
                    "evaluation_prompts",
                    "labelled_answers",
                    "policy",
                    "params:judging",
                    "params:evaluation",
                ],
                "comparison_attack_prompts",
                name="collect_attacks",
                tags=["attacks"],
            ),
            Node(
                nodes.tabulate,
                [
                    "comparison_responses",
                    "comparison_evaluation_judge",
                    "comparison_capability_scores",
                    "policy",
                    "old_policy",
                    "params:seed",
                    "comparison_win_rates",
                    "comparison_attack_responses",
                ],
                "comparison_evaluation_table",
                name="tabulate",
            ),
            Node(
                nodes.write_report,
                [
                    "policy",
                    "params:models",
                    "comparison_responses",
                    "comparison_evaluation_table",
                    "comparison_evaluation_figure",
                    "comparison_evaluation_judge",
                    "comparison_win_rates",
                    "params:evaluation",
                    "parameters",
                ],
                "comparison_report",
                name="write_report",
            ),
        ],
        namespace="evaluate",
        prefix_datasets_with_namespace=False,
    )


def _reuse_evaluation() -> Pipeline:
    stage = evaluation.create_pipeline(namespace=None)
    shared = Pipeline([node for node in stage.nodes if node.name in SHARED])
    return pipeline(
        shared,
        inputs={
            "reference_model": "comparison_before",
            "realigned_model": "comparison_after",
            "prompts_to_answer": "comparison_prompts_to_answer",
            "attack_prompts": "comparison_attack_prompts",
            "evaluation_table": "comparison_evaluation_table",
        },
        outputs=RENAMED,
    )
