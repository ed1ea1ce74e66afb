"""Seconds per stage and peak memory of this process: hooks record them, the summary reads them."""

import resource
import sys
from typing import TypedDict

_KIB_PER_MAXRSS = 1 / 1024 if sys.platform == "darwin" else 1  # macOS counts bytes, Linux KiB
_seconds: dict[str, float] = {}


class Timings(TypedDict):
    """Wall-clock seconds per stage so far, and peak memory in MiB."""

    seconds: dict[str, float]
    peak_memory_mib: float


def reset() -> None:
    """Forget the seconds of all stages: a new run begins."""
    _seconds.clear()


def add_seconds(stage: str, seconds: float) -> None:
    """Add wall-clock seconds to a stage."""
    _seconds[stage] = _seconds.get(stage, 0.0) + seconds


def take_snapshot() -> Timings:
    """Return the seconds per stage, in the order in which the stages began, and the peak memory so far."""
    seconds = {stage: round(total, 2) for stage, total in _seconds.items()}
    return {"seconds": seconds, "peak_memory_mib": round(measure_peak_memory_mib(), 1)}


def measure_peak_memory_mib() -> float:
    """Return the peak resident memory, in MiB, of the largest single process: this one or an ended child.

    Not their sum: Linux hands a parent's own peak to every child that it starts, even to `git status`, so
    that a sum would count this process twice. Ranks of a launched training are therefore not added up.
    """
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    of_children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return max(own, of_children) * _KIB_PER_MAXRSS / 1024
