"""An oracle on a Ray cluster: loaded there, it gives the verdicts of each partition as it is finished."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from realignment.chat_client.usage import Usage
from realignment.oracles.cluster import Appoint, Introduction, Workers
from realignment.oracles.protocol import Judgments, in_order
from realignment.parameters import RayParameters
from realignment.policy import Policy
from realignment.records import Exchange, Judgment, OracleError


@dataclass(frozen=True)
class RayOracle:
    """Another oracle, loaded by the workers of a Ray cluster. Each partition is judged by one of them.

    The verdicts of a partition are given when it is finished, so that the verdict store has those of all
    finished partitions.

    Attributes:
        workers: Who judge.
        wanted: Parameters of the oracle in JSON.
        by: Who it is.
        partition_size: Exchanges of a partition, at most.
        usage: What it has cost so far, of all workers.
    """

    workers: Workers
    wanted: str
    by: Introduction
    partition_size: int
    usage: Usage = field(default_factory=Usage)

    @property
    def name(self) -> str:
        """That of the oracle."""
        return self.by.name

    @property
    def identity(self) -> str:
        """That of the oracle."""
        return self.by.identity

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """One judgment per exchange, in order."""
        return in_order(self, exchanges, policy)

    def stream(self, exchanges: Sequence[Exchange], policy: Policy) -> Judgments:
        """Partition by partition, as they are finished."""
        if not exchanges:
            return
        # Where there are few exchanges, every worker still gets some.
        size = min(self.partition_size, math.ceil(len(exchanges) / len(self.workers.actors)))
        partitions = [list(exchanges[start : start + size]) for start in range(0, len(exchanges), size)]
        for number, verdicts in self.workers.judge(self.wanted, partitions, policy):
            if verdicts.by != self.by:
                raise OracleError(
                    f"Ray workers judge by different oracles: {self.by} and {verdicts.by}. Models on their "
                    "machines differ, or `dtype: auto` means another precision on each. Set "
                    "`judging.local_lm.dtype`, and give the same model to all."
                )
            for name, count in verdicts.spent.items():
                setattr(self.usage, name, getattr(self.usage, name) + count)
            yield from enumerate(verdicts.judgments, start=number * size)


_IN_USE: "WeakValueDictionary[tuple[Appoint, RayParameters], Workers]" = WeakValueDictionary()
"""Oracles of the same setting share their workers: the members of a vote do not each wait for room."""


def distribute(wanted: str, appoint: Appoint, settings: RayParameters) -> RayOracle:
    """The oracle that `appoint` makes of the parameters `wanted`, on the workers of these settings.

    Raises:
        OracleError: Ray is not installed, cannot be reached, or has no room for a single worker.
        RealignmentError: What the oracle itself raises as it is loaded.
    """
    workers = _IN_USE.get((appoint, settings)) or Workers(appoint, settings)
    _IN_USE[appoint, settings] = workers
    return RayOracle(workers, wanted, workers.introduce(wanted), settings.partition_size)
