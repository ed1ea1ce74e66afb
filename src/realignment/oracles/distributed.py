"""An oracle on a Ray cluster: its workers judge partitions, each of which is passed on when finished."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from realignment.chat_client.usage import Usage
from realignment.oracles.cluster import BuildOracle, WorkerIdentity, Workers
from realignment.oracles.protocol import Judgments, judge_in_order
from realignment.parameters import RayParameters
from realignment.policy import Policy
from realignment.records import Exchange, Judgment, OracleError


@dataclass(frozen=True)
class RayOracle:
    """Judges by another oracle, loaded by the workers of a Ray cluster; one of them judges each partition.

    The verdicts of a partition are passed on when it is finished, so that the verdict store has those of all
    finished partitions.

    Attributes:
        workers: The workers.
        parameters: Parameters of the oracle in JSON.
        worker: Name and identity of the oracle.
        partition_size: Exchanges of a partition, at most.
        usage: What the oracle has cost so far, in all workers.
    """

    workers: Workers
    parameters: str
    worker: WorkerIdentity
    partition_size: int
    usage: Usage = field(default_factory=Usage)

    @property
    def name(self) -> str:
        """Name of the oracle that the workers load."""
        return self.worker.name

    @property
    def identity(self) -> str:
        """Identity of the oracle that the workers load."""
        return self.worker.identity

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """Return one judgment per exchange, in order."""
        return judge_in_order(self, exchanges, policy)

    def stream(self, exchanges: Sequence[Exchange], policy: Policy) -> Judgments:
        """Yield position and judgment of every exchange, partition by partition as they are finished.

        Raises:
            OracleError: Workers have loaded different oracles, or cannot judge.
        """
        if not exchanges:
            return
        # Where there are few exchanges, every worker still gets some.
        size = min(self.partition_size, math.ceil(len(exchanges) / len(self.workers.actors)))
        partitions = [list(exchanges[start : start + size]) for start in range(0, len(exchanges), size)]
        for number, answer in self.workers.judge(self.parameters, partitions, policy):
            if answer.worker != self.worker:
                raise OracleError(
                    f"Ray workers judge by different oracles: {self.worker} and {answer.worker}. Models on "
                    "their machines differ, or `dtype: auto` means another precision on each. Set "
                    "`judging.local_lm.dtype`, and give the same model to all."
                )
            for name, count in answer.usage.items():
                setattr(self.usage, name, getattr(self.usage, name) + count)
            yield from enumerate(answer.judgments, start=number * size)


_ACTIVE_WORKERS: "WeakValueDictionary[tuple[BuildOracle, RayParameters], Workers]" = WeakValueDictionary()
"""Oracles of the same setting share their workers: members of a vote do not each wait for resources."""


def distribute(parameters: str, build_oracle: BuildOracle, settings: RayParameters) -> RayOracle:
    """Return an oracle that judges on the workers of a Ray cluster.

    Args:
        parameters: Parameters of the oracle in JSON.
        build_oracle: Builds the oracle from them, in each worker.
        settings: Address, number and resources of the workers.

    Returns:
        The oracle, which at least one worker has loaded.

    Raises:
        OracleError: Ray is not installed, cannot be reached, or has no room for a single worker.
        RealignmentError: What the oracle itself raises as it is loaded.
    """
    workers = _ACTIVE_WORKERS.get((build_oracle, settings)) or Workers(build_oracle, settings)
    _ACTIVE_WORKERS[build_oracle, settings] = workers
    return RayOracle(workers, parameters, workers.identify(parameters), settings.partition_size)
