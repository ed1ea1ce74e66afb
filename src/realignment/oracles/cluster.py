"""Workers of a Ray cluster: each loads an oracle once, and each partition goes to one that is free."""

import functools
import gc
import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from realignment.oracles.protocol import CostlyOracle, Oracle
from realignment.parameters import RayParameters
from realignment.policy import Policy
from realignment.records import Exchange, Judgment, OracleError

logger = logging.getLogger(__name__)

Appoint = Callable[[str], Oracle]
"""Builds an oracle from its parameters in JSON: in the worker, not here."""

_MAX_DEATHS = 3
_PATIENCE_S = 60.0
_SHARED_MEMORY = 2**28
"""Bytes that a cluster started here sets aside for the texts and verdicts of the partitions under way."""


@dataclass(frozen=True, slots=True)
class Introduction:
    """Who the oracle in a worker is; `identity` is empty where its verdicts are not worth keeping."""

    name: str
    identity: str


@dataclass(frozen=True, slots=True)
class Verdicts:
    """A worker's judgments of a partition, in order, and what they cost."""

    by: Introduction
    judgments: list[Judgment]
    spent: dict[str, float]


class Worker:
    """An actor of Ray. It appoints an oracle when it is first asked for it, also after Ray restarted it."""

    def __init__(self, appoint: Appoint) -> None:
        self._appoint = functools.cache(appoint)

    def introduce(self, wanted: str) -> Introduction:
        """Load the oracle, where that is still to be done."""
        oracle = self._appoint(wanted)
        return Introduction(oracle.name, oracle.identity if isinstance(oracle, CostlyOracle) else "")

    def judge(self, wanted: str, exchanges: list[Exchange], policy: Policy) -> Verdicts:
        """Judge a partition."""
        oracle = self._appoint(wanted)
        before = _count(oracle)
        judgments = oracle(exchanges, policy)
        spent = {name: count - before[name] for name, count in _count(oracle).items()}
        return Verdicts(self.introduce(wanted), judgments, spent or {"asked": len(judgments)})


def _count(oracle: Oracle) -> dict[str, float]:
    return asdict(oracle.usage) if isinstance(oracle, CostlyOracle) else {}


class Workers:
    """The actors of one setting. They end, and leave their memory, when nothing refers to them any more.

    Raises:
        OracleError: Ray is not installed, cannot be reached, or has no room for a single worker.
    """

    def __init__(self, appoint: Appoint, settings: RayParameters) -> None:
        gc.collect()  # an oracle that raised is in a cycle with its error, and its workers keep their room
        ray = _connect(settings)
        threads = str(settings.cpus_per_worker)
        # Set before the process starts, for the libraries read them as they are imported.
        variables = {"OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads}
        if not settings.gpus_per_worker:
            variables["CUDA_VISIBLE_DEVICES"] = ""
        actor = ray.remote(
            num_cpus=settings.cpus_per_worker,
            num_gpus=settings.gpus_per_worker,
            max_restarts=-1,
            runtime_env={"env_vars": variables},
        )(Worker)
        self.actors = [actor.remote(appoint) for _ in range(settings.workers)]

    def introduce(self, wanted: str) -> Introduction:
        """Who the oracle is, as soon as one worker has loaded it; the others go on loading."""
        calls = _Calls(self.actors, wanted)
        while not isinstance(answer := calls.next_answer()[1], Introduction):
            continue
        return answer

    def judge(
        self, wanted: str, partitions: Sequence[list[Exchange]], policy: Policy
    ) -> Iterator[tuple[int, Verdicts]]:
        """Number and verdicts of each partition, as they are finished.

        A worker that dies gets nothing to do until Ray has started it anew, where there is room for it. Its
        partition goes to whoever is free first.

        Raises:
            OracleError: A partition has killed several workers, or no worker can load the oracle.
        """
        import ray

        calls, shared = _Calls(self.actors, wanted), ray.put(policy)
        waiting, deaths, finished = deque(range(len(partitions))), Counter[int](), 0
        while finished < len(partitions):
            number, answer = calls.next_answer()
            if number is not None and answer is None:
                waiting.appendleft(number)
                deaths[number] += 1
                _check_deaths(deaths[number], partitions[number])
            while calls.free and waiting:
                calls.judge(waiting[0], partitions[waiting[0]], shared)
                waiting.popleft()
            if number is not None and isinstance(answer, Verdicts):
                finished += 1
                yield number, answer


class _Calls:
    """What the workers are asked for at the moment, and who of them is free."""

    def __init__(self, actors: Sequence[Any], wanted: str) -> None:
        self.free: list[Any] = []
        self._wanted = wanted
        self._pending: dict[Any, tuple[Any, int | None]] = {}
        for actor in actors:
            self._introduce(actor)

    def _introduce(self, actor: Any) -> None:
        call = actor.introduce.options(max_task_retries=_MAX_DEATHS).remote(self._wanted)
        self._pending[call] = (actor, None)

    def judge(self, number: int, partition: list[Exchange], policy: Any) -> None:
        """Give a partition to a free worker."""
        actor = self.free.pop()
        self._pending[actor.judge.remote(self._wanted, partition, policy)] = (actor, number)

    def next_answer(self) -> tuple[int | None, Introduction | Verdicts | None]:
        """The partition's number, None for an introduction, and the answer, None where the worker died."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        call = self._wait()
        actor, number = self._pending.pop(call)
        try:
            answer: Introduction | Verdicts = ray.get(call)
        except RayTaskError as error:  # the oracle's own
            raise error.cause from error
        except RayError as error:
            logger.warning("A Ray worker died (%s)", str(error).partition("\n")[0])
            if number is not None:
                self._introduce(actor)
            elif not self._pending and not self.free:
                raise OracleError(
                    f"No Ray worker can load the oracle: each died {_MAX_DEATHS + 1} times as it tried "
                    f"({error}). Often memory is short: ask for fewer `judging.ray.workers` on a machine, or "
                    "judge by a smaller model. Where a module is missing, install this package on "
                    "every machine. What is judged already is kept."
                ) from error
            return number, None
        self.free.append(actor)
        return number, answer

    def _wait(self) -> Any:
        import ray

        while not (ready := ray.wait(list(self._pending), timeout=_PATIENCE_S)[0]):
            if all(number is None for _, number in self._pending.values()):
                logger.warning(
                    "No Ray worker is ready yet: they load the oracle, or wait for room (free: %s)",
                    ray.available_resources(),
                )
        return ready[0]


def _check_deaths(deaths: int, partition: list[Exchange]) -> None:
    if deaths > _MAX_DEATHS:
        longest = max(len(exchange.prompt) + len(exchange.response) for exchange in partition)
        raise OracleError(
            f"A partition of {len(partition)} exchanges (the longest has {longest} characters) has killed "
            f"{deaths} Ray workers. Often memory is short: lower `judging.local_lm.token_budget`, or ask for "
            "fewer `judging.ray.workers` on a machine. What is judged already is kept."
        )


def _connect(settings: RayParameters) -> Any:
    """The module `ray`, connected to the cluster; one that is started here ends with this process."""
    try:
        import ray
    except ImportError as error:
        raise OracleError(
            "`judging.engine: ray` needs the package ray, which is not installed: "
            "`pip install 'realignment[ray]'`, or set `judging.engine: local`."
        ) from error
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    cpus = max(os.cpu_count() or 1, settings.workers * settings.cpus_per_worker)
    # The first error is raised here; those of other workers, mostly the same one, are not printed as well.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        if ray.is_initialized():
            pass
        elif settings.address is not None:
            ray.init(address=settings.address, **quiet)
        else:
            own = {"include_dashboard": False, "object_store_memory": _SHARED_MEMORY}
            ray.init(address="local", num_cpus=cpus, **own, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise OracleError(
            f"Ray cannot be reached at `judging.ray.address: {settings.address or 'null'}`: {error}. Give "
            "host:port of its head node, `auto` on a machine of the cluster, or null to start one here."
        ) from error
    _check_room(ray.cluster_resources(), settings)
    return ray


def _check_room(found: dict[str, float], settings: RayParameters) -> None:
    """Workers that do not fit wait, for ever where the cluster does not grow."""
    wanted = {"CPU": settings.cpus_per_worker, "GPU": settings.gpus_per_worker}
    fitting = min(int(found.get(name, 0) // count) for name, count in wanted.items() if count)
    if fitting >= settings.workers:
        return
    message = (
        f"Ray has room for {fitting} of {settings.workers} workers: each wants {wanted}, found "
        f"{ {name: found.get(name, 0) for name in wanted} }."
    )
    if not fitting and settings.address is None:
        raise OracleError(f"{message} Lower `judging.ray.gpus_per_worker`, or give the address of a cluster.")
    logger.warning("%s The others wait until there is", message)
