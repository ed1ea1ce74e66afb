"""Workers of a Ray cluster: each loads an oracle once, and free ones take the next partition."""

import functools
import gc
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from realignment.oracles.protocol import CostlyOracle, Oracle
from realignment.oracles.ray_connection import connect_to_ray
from realignment.parameters import RayParameters
from realignment.policy import Policy
from realignment.records import Exchange, Judgment, OracleError

logger = logging.getLogger(__name__)

BuildOracle = Callable[[str], Oracle]
"""Builds an oracle from its parameters in JSON: called in the worker, not in this process."""

_MAX_DEATHS = 3
"""Workers that may die of one partition, or of loading the oracle, before the run stops."""
_REPORT_EVERY_S = 60.0
"""Seconds of waiting after which the log says why."""


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """Name and identity of the oracle in a worker; no identity where its verdicts are not worth storing."""

    name: str
    identity: str


@dataclass(frozen=True, slots=True)
class PartitionJudgments:
    """A worker's judgments of a partition, in order, and the usage that they add."""

    worker: WorkerIdentity
    judgments: list[Judgment]
    usage: dict[str, float]


class Worker:
    """An actor of Ray, which loads an oracle at the first call, also after Ray has restarted it."""

    def __init__(self, build_oracle: BuildOracle) -> None:
        self._build_oracle = functools.cache(build_oracle)

    def report_alive(self) -> bool:
        """Return True: a process is there to answer."""
        return True

    def identify(self, parameters: str) -> WorkerIdentity:
        """Load the oracle of these parameters, if it is not loaded yet, and return its identity."""
        oracle = self._build_oracle(parameters)
        return WorkerIdentity(oracle.name, oracle.identity if isinstance(oracle, CostlyOracle) else "")

    def judge(self, parameters: str, exchanges: list[Exchange], policy: Policy) -> PartitionJudgments:
        """Judge a partition by the oracle of these parameters."""
        oracle = self._build_oracle(parameters)
        before = _read_usage(oracle)
        judgments = oracle(exchanges, policy)
        usage = {name: count - before[name] for name, count in _read_usage(oracle).items()}
        return PartitionJudgments(self.identify(parameters), judgments, usage or {"asked": len(judgments)})


def _read_usage(oracle: Oracle) -> dict[str, float]:
    return asdict(oracle.usage) if isinstance(oracle, CostlyOracle) else {}


class Workers:
    """The actors of one setting. They end, and free their memory, when nothing refers to them any more.

    Raises:
        OracleError: Ray is not installed, cannot be reached, or has no room for a single worker.
    """

    def __init__(self, build_oracle: BuildOracle, settings: RayParameters) -> None:
        # An oracle that raised is in a reference cycle with its error, and its workers hold resources.
        gc.collect()
        ray = connect_to_ray(settings)
        threads = str(settings.cpus_per_worker)
        # Set before the process starts, since libraries read them when they are imported.
        variables = {"OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads}
        if not settings.gpus_per_worker:
            variables["CUDA_VISIBLE_DEVICES"] = ""
        actor = ray.remote(
            num_cpus=settings.cpus_per_worker,
            num_gpus=settings.gpus_per_worker,
            max_restarts=-1,
            runtime_env={"env_vars": variables},
        )(Worker)
        self.actors = [actor.remote(build_oracle) for _ in range(settings.workers)]

    def identify(self, parameters: str) -> WorkerIdentity:
        """Return the oracle's identity, as soon as one worker has loaded it; the others continue to load."""
        calls = _Calls(self.actors, parameters)
        while True:
            _, answer = calls.next_answer()
            if isinstance(answer, WorkerIdentity):
                return answer

    def judge(
        self, parameters: str, partitions: Sequence[list[Exchange]], policy: Policy
    ) -> Iterator[tuple[int, PartitionJudgments]]:
        """Yield number and judgments of each partition, as they are finished.

        A worker that dies gets no work until Ray has restarted it, if the cluster has resources for it. Its
        partition goes to the next worker that is free.

        Args:
            parameters: Parameters of the oracle in JSON.
            partitions: Exchanges to judge.
            policy: The policy to judge by.

        Yields:
            Index into `partitions`, and the judgments.

        Raises:
            OracleError: A partition has killed several workers, or no worker can load the oracle.
        """
        import ray

        calls = _Calls(self.actors, parameters)
        shared_policy = ray.put(policy)  # sent to each machine once, not with every partition
        waiting = deque(range(len(partitions)))
        deaths: Counter[int] = Counter()
        n_finished = 0
        while n_finished < len(partitions):
            number, answer = calls.next_answer()
            if number is not None and answer is None:  # its worker died
                waiting.appendleft(number)
                deaths[number] += 1
                _check_deaths(deaths[number], partitions[number])
            while calls.free and waiting:
                calls.judge(waiting[0], partitions[waiting[0]], shared_policy)
                waiting.popleft()
            if number is not None and isinstance(answer, PartitionJudgments):
                n_finished += 1
                yield number, answer


@dataclass(frozen=True, slots=True)
class _Call:
    """A pending call: to which actor, what for, and the partition's number where it judges one."""

    actor: Any
    stage: Literal["start", "load", "judge"]
    number: int | None = None


class _Calls:
    """The pending calls to the workers, and the workers that are free.

    A worker is first waited for, as long as Ray needs to start or restart it, then told to load the oracle.
    Failing after it was alive is a death by loading; failing before is a slow start and costs time only.
    """

    def __init__(self, actors: Sequence[Any], parameters: str) -> None:
        self.free: list[Any] = []
        self._parameters = parameters
        self._pending: dict[Any, _Call] = {}
        self._deaths_by_loading: Counter[Any] = Counter()
        for actor in actors:
            self._wait_until_alive(actor)

    def _wait_until_alive(self, actor: Any) -> None:
        call = actor.report_alive.options(max_task_retries=-1).remote()
        self._pending[call] = _Call(actor, "start")

    def _identify(self, actor: Any) -> None:
        self._pending[actor.identify.remote(self._parameters)] = _Call(actor, "load")

    def judge(self, number: int, partition: list[Exchange], policy: Any) -> None:
        """Give a partition to a free worker."""
        actor = self.free.pop()
        call = actor.judge.remote(self._parameters, partition, policy)
        self._pending[call] = _Call(actor, "judge", number)

    def next_answer(self) -> tuple[int | None, WorkerIdentity | PartitionJudgments | None]:
        """Wait for a worker to load the oracle, to judge a partition, or to die of it.

        Returns:
            The partition's number, None where the worker has loaded the oracle; and the answer, None where
            the worker died.

        Raises:
            OracleError: No worker can load the oracle.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError

        while True:
            ready = self._wait()
            call = self._pending.pop(ready)
            try:
                answer: WorkerIdentity | PartitionJudgments | bool = ray.get(ready)
            except RayTaskError as error:  # raised by the oracle itself
                raise error.cause from error
            except RayError as error:
                logger.warning("A Ray worker died (%s)", str(error).partition("\n")[0])
                self._restart(call, error)
                return call.number, None
            if isinstance(answer, bool):
                self._identify(call.actor)
                continue
            self.free.append(call.actor)
            return call.number, answer

    def _restart(self, call: _Call, error: Exception) -> None:
        """Wait for the worker again, unless it has died too often of loading the oracle."""
        self._deaths_by_loading[call.actor] += call.stage == "load"
        if call.stage != "start" and self._deaths_by_loading[call.actor] <= _MAX_DEATHS:
            self._wait_until_alive(call.actor)
        elif not self._pending and not self.free:
            raise OracleError(
                f"No Ray worker can load the oracle: each died {_MAX_DEATHS + 1} times as it tried "
                f"({error}). Often memory is short: ask for fewer `judging.ray.workers` on a machine, or "
                "judge by a smaller model. Where a module is missing, install this package on "
                "every machine. Verdicts so far are stored."
            ) from error

    def _wait(self) -> Any:
        import ray

        while True:
            ready, _ = ray.wait(list(self._pending), timeout=_REPORT_EVERY_S)
            if ready:
                return ready[0]
            if all(call.number is None for call in self._pending.values()):
                logger.warning(
                    "No Ray worker is ready yet: they load the oracle, or wait for resources (free: %s)",
                    ray.available_resources(),
                )


def _check_deaths(deaths: int, partition: list[Exchange]) -> None:
    if deaths > _MAX_DEATHS:
        longest = max(len(exchange.prompt) + len(exchange.response) for exchange in partition)
        raise OracleError(
            f"A partition of {len(partition)} exchanges (the longest has {longest} characters) has killed "
            f"{deaths} Ray workers. Often memory is short: lower `judging.local_lm.token_budget`, or ask for "
            "fewer `judging.ray.workers` on a machine. Verdicts so far are stored."
        )
