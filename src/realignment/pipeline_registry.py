"""Register the pipelines by name.

They are listed, because under Kedro's selective loading `find_pipelines()` loses a composite pipeline.
"""

from kedro.pipeline import Pipeline

from realignment.pipelines import (
    align,
    audit,
    baselines,
    corrections,
    evaluate,
    evaluation,
    gold,
    impact,
    infer_policy,
    judge_stream,
    judging,
    model,
    promotion,
    review,
    train_classifier,
    training,
    triage,
    win_rate,
)

PREPARED = ("model", "judging", "triage", "corrections")
"""Stages whose splits the pipeline `baselines` compares methods on."""

STAGES = (model, judging, triage, corrections, gold, impact, training, evaluation, promotion)


def register_pipelines() -> dict[str, Pipeline]:
    """Return each stage by its own name, all of them in order as `realign`, and the pipelines beside it."""
    stages = {stage.__name__.rpartition(".")[2]: stage.create_pipeline() for stage in STAGES}
    realign = sum(stages.values(), start=Pipeline([]))
    others = {
        "align": align.create_pipeline(),
        "audit": audit.create_pipeline(),
        "baselines": sum((stages[name] for name in PREPARED), start=Pipeline([]))
        + baselines.create_pipeline(),
        "evaluate": evaluate.create_pipeline(),
        "judge_stream": judge_stream.create_pipeline(),
        "infer_policy": infer_policy.create_pipeline(),
        "train_classifier": train_classifier.create_pipeline(),
        "review_export": review.create_export(),
        "review_import": review.create_import(),
        "win_rate_export": win_rate.create_export(),
        "win_rate_import": win_rate.create_import(),
    }
    return stages | others | {"realign": realign, "__default__": realign}
