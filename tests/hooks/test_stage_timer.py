import time

from kedro.pipeline import Node
from tiny_project import STAGES, run, train

from realignment.hooks.stage_timer import StageTimer
from realignment.tracking import timing


def test_seconds_are_counted_per_stage_and_a_run_begins_anew(project, monkeypatch):
    def train_slowly(kept):
        time.sleep(0.2)
        return train(kept)

    node = Node(train_slowly, "kept_pairs", "training_history", namespace="training")
    monkeypatch.setitem(STAGES, "slow", node)
    run(project, "triage", version="timed-before", hooks=(StageTimer(),))
    run(project, "slow", version="timed", hooks=(StageTimer(),))
    timings = timing.take_snapshot()
    assert list(timings["seconds"]) == ["training"]
    assert 0.2 <= timings["seconds"]["training"] < 2
    assert timings["peak_memory_mib"] > 50
