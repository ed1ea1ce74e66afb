"""The pipelines by name. Explicit: under Kedro's selective loading `find_pipelines()` loses a composite."""

from kedro.pipeline import Pipeline

from realignment.pipelines import (
    align,
    corrections,
    evaluation,
    gold,
    impact,
    infer_policy,
    judging,
    model,
    promotion,
    training,
    triage,
)

STAGES = (model, judging, triage, corrections, gold, impact, training, evaluation, promotion)


def register_pipelines() -> dict[str, Pipeline]:
    """Each stage by its own name; `realign` is all of them in order; `align` makes a reference model.

    `infer_policy` proposes an old policy where nobody wrote it down.
    """
    stages = {stage.__name__.rpartition(".")[2]: stage.create_pipeline() for stage in STAGES}
    realign = sum(stages.values(), start=Pipeline([]))
    others = {"align": align.create_pipeline(), "infer_policy": infer_policy.create_pipeline()}
    return stages | {"realign": realign, **others, "__default__": realign}
