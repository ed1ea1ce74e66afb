"""Reference and realigned model → the evaluation table."""

from kedro.pipeline import Node, Pipeline

from realignment.pipelines.evaluation import nodes

HELD_OUT = ["held_out_pairs", "gold_manifest", "training_manifest"]
MODELS = ["reference_model", "realigned_model", "params:model"]


def create_pipeline(namespace: str | None = "evaluation", **_: object) -> Pipeline:
    """Both models → answers, verdicts, held-out scores, capability → evaluation_table."""
    return Pipeline(
        [
            Node(
                nodes.collect_prompts,
                [
                    "evaluation_prompts",
                    "training_pairs",
                    "gold_batch",
                    *HELD_OUT,
                    "labelled_answers",
                    "policy",
                    "params:judging",
                    "params:evaluation",
                ],
                "prompts_to_answer",
                name="collect_prompts",
            ),
            Node(
                nodes.answer_prompts,
                ["prompts_to_answer", *MODELS, "params:evaluation", "params:seed"],
                "answers",
                name="answer_prompts",
                tags=["gpu"],
            ),
            Node(
                nodes.judge_answers,
                [
                    "answers",
                    "labelled_answers",
                    "policy",
                    "params:judging",
                    "params:evaluation",
                    "params:seed",
                ],
                ["responses", "evaluation_judge"],
                name="judge_answers",
                tags=["oracle"],
            ),
            Node(
                nodes.compare_answers,
                ["answers", "policy", "params:evaluation", "params:seed"],
                ["comparisons", "win_rates"],
                name="compare_answers",
                tags=["oracle", "win_rates"],
            ),
            Node(
                nodes.collect_attacks,
                [
                    "attacks",
                    "behaviours",
                    "evaluation_prompts",
                    "training_pairs",
                    "gold_batch",
                    "held_out_pairs",
                    "labelled_answers",
                    "policy",
                    "params:judging",
                    "params:evaluation",
                ],
                "attack_prompts",
                name="collect_attacks",
                tags=["attacks"],
            ),
            Node(
                nodes.answer_prompts,
                ["attack_prompts", *MODELS, "params:evaluation", "params:seed"],
                "attack_answers",
                name="answer_attacks",
                tags=["gpu", "attacks"],
            ),
            Node(
                nodes.judge_attacks,
                [
                    "attack_answers",
                    "labelled_answers",
                    "policy",
                    "params:judging",
                    "params:evaluation",
                    "params:seed",
                ],
                "attack_responses",
                name="judge_attacks",
                tags=["oracle", "attacks"],
            ),
            Node(
                nodes.score_held_out,
                [*HELD_OUT, *MODELS, "params:training", "params:evaluation"],
                "held_out_scores",
                name="score_held_out",
                tags=["gpu"],
            ),
            Node(
                nodes.measure_capability,
                [*MODELS, "params:evaluation"],
                "capability_scores",
                name="measure_capability",
                tags=["gpu"],
            ),
            Node(
                nodes.tabulate,
                [
                    "responses",
                    "evaluation_judge",
                    "held_out_scores",
                    "capability_scores",
                    "attack_responses",
                    "policy",
                    "old_policy",
                    "params:seed",
                    "win_rates",
                ],
                "evaluation_table",
                name="tabulate",
            ),
            Node(nodes.draw_agreement, "evaluation_table", "evaluation_figure", name="draw_agreement"),
        ],
        namespace=namespace,
        prefix_datasets_with_namespace=False,
    )
