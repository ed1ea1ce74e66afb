"""Measurement of peers side by side in one process, with a check that their results are equal.

Time is the CPU time of one thread (on a GPU: between two synchronisations). Every round runs each peer once,
every other round in reverse order, and a ratio is the median of the rounds' ratios. Memory is the peak of one
call in a new process.
"""

import argparse
import ctypes
import gc
import json
import logging
import math
import multiprocessing
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from unittest import mock

# Before the libraries are imported: no hub, no progress bars.
os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}

import datasets
import torch
import transformers
from torch import Tensor

Result = Mapping[str, Sequence[Tensor]]
"""The results of a call, by name; results that two calls have in common are compared."""

Call = Callable[[], Result]

PACKAGES = ("torch", "transformers", "trl", "peft")


@dataclass(frozen=True, slots=True)
class Claim:
    """`ours` takes at most 1/`goal` of the time (or memory) of `peer`, and their results are equal.

    Attributes:
        row: Name of the row.
        peer: The call whose cost is the numerator of the ratio.
        ours: The call whose cost is the denominator.
        goal: Least ratio; None where the row is for information only.
        tolerances: Relative L2 error allowed for each result that both have.
    """

    row: str
    peer: str
    ours: str
    goal: float | None
    tolerances: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """A measured claim.

    Attributes:
        ratio: Median over the rounds of the peer's cost over ours.
        goal: Least ratio; None without a goal.
        met: Whether the row is exact and reaches its goal; None without a goal.
        exact: Whether no error is above its tolerance.
        errors: Relative L2 error of each result.
        peer_cost: Median cost of the peer, in `unit`.
        our_cost: Median cost of ours, in `unit`.
        unit: Unit of the costs.
    """

    ratio: float
    goal: float | None
    met: bool | None
    exact: bool
    errors: Mapping[str, float]
    peer_cost: float
    our_cost: float
    unit: str


def silence_libraries() -> None:
    """Use one thread, and silence warnings and progress bars of the libraries."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()


def parse_options(description: str | None, **more: Mapping[str, object]) -> argparse.Namespace:
    """Parse the command line that all benchmarks share, and `more` options of the benchmark's own."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write {row: {ratio, goal, met, exact, …}} to this file")
    parser.add_argument(
        "--quick", action="store_true", help="a tiny model, one round: does it run, is it exact?"
    )
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds after the warm-up")
    for name, keywords in more.items():
        parser.add_argument(f"--{name}", **keywords)  # type: ignore[arg-type]
    options = parser.parse_args()
    if options.quick:
        options.rounds = 1
    silence_libraries()
    return options


def measure_seconds(call: Call, device: str = "cpu") -> tuple[float, Result]:
    """Return the CPU time of the call, and its result; on a GPU the time until the GPU is done."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
    clock = time.perf_counter if device == "cuda" else time.process_time
    start = clock()
    result = call()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start, result


def alternate(
    calls: Mapping[str, Call], *, rounds: int, device: str = "cpu"
) -> tuple[dict[str, list[float]], dict[str, Result]]:
    """Measure the calls in alternating order.

    Args:
        calls: The calls, by name.
        rounds: Rounds after the warm-up.
        device: Where they run.

    Returns:
        The seconds of every call in each round, and its results from the warm-up.
    """
    results = {name: copy_result(call()) for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in list(calls) if number % 2 == 0 else reversed(calls):
            seconds[name].append(measure_seconds(calls[name], device)[0])
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return seconds, results


def copy_result(result: Result) -> Result:
    """Copy the result to the CPU in float64, so that the next call cannot change it."""
    return {
        name: [t.detach().to("cpu", torch.float64, copy=True) for t in values]
        for name, values in result.items()
    }


def relative_error(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return ‖actual − expected‖₂ / ‖expected‖₂ over all tensors.

    Infinite where shapes differ, a value is NaN, or everything expected is zero: then nothing is shown.
    """
    if [t.shape for t in actual] != [t.shape for t in expected]:
        return math.inf
    actual_values = torch.cat([t.double().flatten() for t in actual])
    expected_values = torch.cat([t.double().flatten() for t in expected])
    error = float((actual_values - expected_values).norm() / expected_values.norm())
    return math.inf if math.isnan(error) else error


def evaluate_claims(
    claims: Iterable[Claim],
    costs: Mapping[str, Sequence[float]],
    results: Mapping[str, Result],
    *,
    unit: str = "s",
) -> dict[str, Row]:
    """Compute the ratio and the errors of every claim.

    Args:
        claims: What to evaluate.
        costs: Cost of every call in each round.
        results: Results of every call.
        unit: Unit of the costs.

    Returns:
        Rows by the names of the claims.
    """
    rows = {}
    for claim in claims:
        pairs = list(zip(costs[claim.peer], costs[claim.ours], strict=True))
        ratio = statistics.median(peer / ours for peer, ours in pairs)
        actual = results[claim.ours]
        expected = results[claim.peer]
        errors = {name: relative_error(actual[name], expected[name]) for name in claim.tolerances}
        exact = all(errors[name] <= limit for name, limit in claim.tolerances.items())
        rows[claim.row] = Row(
            ratio=ratio,
            goal=claim.goal,
            met=None if claim.goal is None else exact and ratio >= claim.goal,
            exact=exact,
            errors=errors,
            peer_cost=statistics.median(peer for peer, _ in pairs),
            our_cost=statistics.median(ours for _, ours in pairs),
            unit=unit,
        )
    return rows


def measure_peaks(
    build: Callable[[str], Call], names: Iterable[str], device: str = "cpu"
) -> tuple[dict[str, list[float]], dict[str, Result]]:
    """Measure the peak memory of each call, on top of what was allocated before.

    Each runs in a new process whose allocator returns freed tensors at once, so that the peak counts only
    live tensors.

    Args:
        build: Function of a module, or a partial of one: the name of a call → the call.
        names: The calls to measure.
        device: The device whose memory is measured.

    Returns:
        Peaks in MiB, one per call, and the results.
    """
    memory, results = {}, {}
    with mock.patch.dict(os.environ, {"MALLOC_MMAP_THRESHOLD_": "65536"}):
        for name in names:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as child:
                memory[name], results[name] = child.submit(_peak_here, build, name, device).result()
            print(f"memory of {name}: {memory[name][0]:.0f} MiB", file=sys.stderr)
    return memory, results


def _peak_here(build: Callable[[str], Call], name: str, device: str) -> tuple[list[float], Result]:
    silence_libraries()
    call = build(name)
    result = copy_result(call())
    gc.collect()
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return [(torch.cuda.max_memory_allocated() - before) / 2**20], result
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to VmRSS
    before = _resident_kib("VmRSS")
    call()
    # A call too small to be seen counts as one page.
    return [max(_resident_kib("VmHWM") - before, 4) / 2**10], result


def _resident_kib(figure: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{figure}:"))


def describe_machine() -> str:
    """Return processor, device and versions in one line."""
    names = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    versions = [f"{package} {version(package)}" for package in PACKAGES]
    system = f"{platform.machine()} ({names[0] if names else 'unknown'}), one thread"
    return "; ".join([system, *gpu, f"Python {platform.python_version()}", *versions])


def format_table(rows: Mapping[str, Row]) -> str:
    """Format the rows in Markdown."""
    lines = ["| | ratio | goal | met | largest error | peer | ours |", "|---|---|---|---|---|---|---|"]
    for name, row in rows.items():
        goal = "" if row.goal is None else f"≥ {row.goal:.2f}"
        met = {None: "", True: "yes", False: "no"}[row.met]
        error = f"{max(row.errors.values()):.0e}" if row.errors else ""
        cells = [f"**{row.ratio:.2f}**", goal, met, error if row.exact else f"{error} **DIFFERS**"]
        costs = [f"{cost:.3g} {row.unit}" for cost in (row.peer_cost, row.our_cost)]
        lines.append(f"| {name} | {' | '.join([*cells, *costs])} |")
    return "\n".join(lines)


def report(rows: Mapping[str, Row], options: argparse.Namespace) -> int:
    """Print the table, write the JSON, and return the exit status: 1 where results differ."""
    print(f"{describe_machine()}\n\n{format_table(rows)}")
    if options.json is not None:
        content = {name: asdict(row) for name, row in rows.items()}
        options.json.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
    return 0 if all(row.exact for row in rows.values()) else 1
