"""Seconds per stage and peak memory of this process: hooks record them, the summary reads them."""

import resource
import sys
from typing import TypedDict

_KIB_PER_MAXRSS = 1 / 1024 if sys.platform == "darwin" else 1  # macOS counts bytes, Linux KiB
_seconds: dict[str, float] = {}


class Timings(TypedDict):
    """What `snapshot` returns: wall-clock seconds per stage so far, and MiB at the peak."""

    seconds: dict[str, float]
    peak_memory_mib: float


def restart() -> None:
    """Forget all stages: a new run begins."""
    _seconds.clear()


def add(stage: str, seconds: float) -> None:
    """Add wall-clock seconds to a stage."""
    _seconds[stage] = _seconds.get(stage, 0.0) + seconds


def snapshot() -> Timings:
    """Seconds per stage, in the order in which the stages began, and the peak memory so far."""
    seconds = {stage: round(spent, 2) for stage, spent in _seconds.items()}
    return {"seconds": seconds, "peak_memory_mib": round(peak_memory_mib(), 1)}


def peak_memory_mib() -> float:
    """Peak resident memory, in MiB, of the largest single process: this one or a child that has ended.

    Not their sum: Linux hands a parent's own peak to every child that it starts, even to `git status`, so
    that a sum would count this process twice. Ranks of a launched training are therefore not added up.
    """
    largest = max(
        resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return largest * _KIB_PER_MAXRSS / 1024
