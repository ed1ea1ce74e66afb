"""Measure the seconds of every stage."""

from time import perf_counter

from kedro.framework.hooks import hook_impl
from kedro.pipeline.node import Node

from realignment.tracking import timing


class StageTimer:
    """Adds the seconds of each node, loads and saves included, to its outermost namespace: its stage."""

    def __init__(self) -> None:
        # By name of the node: when it started, or when its seconds were last counted.
        self._last_times: dict[str, float] = {}

    @hook_impl
    def before_pipeline_run(self) -> None:
        """Forget the seconds of an earlier run of this process."""
        timing.reset()
        self._last_times.clear()

    @hook_impl
    def before_dataset_loaded(self, node: Node) -> None:
        """Start the clock of a node at its first load."""
        self._last_times.setdefault(node.name, perf_counter())

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Start the clock of a node that loads nothing."""
        self._last_times.setdefault(node.name, perf_counter())

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Count loads and computation."""
        self._count(node)

    @hook_impl
    def after_dataset_saved(self, node: Node) -> None:
        """Count a save."""
        self._count(node)

    def _count(self, node: Node) -> None:
        now = perf_counter()
        last_time = self._last_times.get(node.name, now)
        stage = (node.namespace or node.name).partition(".")[0]
        timing.add_seconds(stage, now - last_time)
        self._last_times[node.name] = now
