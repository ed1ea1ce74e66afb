"""The growth of time and memory of a step: `python benchmarks/growth.py [--json FILE]`.

The slope of log cost over log size: 1 is proportional, 2 quadratic. A ratio is TRL's slope over ours.
"""

import math
import statistics
import sys
from collections.abc import Sequence
from functools import partial

import cases
import step
from harness import Claim, Result, Row, alternate, evaluate_claims, measure_peaks, parse_options, report

NAMES = (step.TRL, step.STATIC)
AXES = {
    "pairs": (4, 8, 16),
    "tokens of a pair": (1, 2, 4),
    "vocabulary": (8192, 16384, 32768),
    "layers": (4, 8, 16),
}


def build_case(axis: str, value: int, size: str) -> step.Case:
    """Build the PKU-like batch of 4 pairs, with one size changed."""
    factor = value if axis == "tokens of a pair" else 1
    base = cases.LENGTHS["PKU-like"]
    lengths = cases.Lengths(
        prompt=(factor * base.prompt[0], factor * base.prompt[1]),
        response=(factor * base.response[0], factor * base.response[1]),
    )
    count = value if axis == "pairs" else 4
    changes = {"vocabulary": {"vocab_size": value}, "layers": {"num_hidden_layers": value}}.get(axis, {})
    pairs = cases.random_pairs(count, cases.SHAPES[size][-1], lengths, seed=1)
    return step.Case(pairs, size, lora=True, options=changes)


def slope(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """Return the slope of the least-squares line through (log size, log cost)."""
    line = statistics.linear_regression([math.log(x) for x in sizes], [math.log(y) for y in costs])
    return line.slope


def grow(axis: str, sizes: Sequence[int], size: str, rounds: int) -> dict[str, Row]:
    """Measure time and memory along one axis, a row each."""
    costs: dict[str, dict[str, list[float]]] = {
        what: {name: [] for name in NAMES} for what in ("time", "memory")
    }
    results: dict[str, dict[str, Result]] = {}
    for value in sizes:
        build = partial(step.build, build_case(axis, value, size))
        seconds, outputs = alternate({name: build(name) for name in NAMES}, rounds=rounds)
        memory, _ = measure_peaks(build, NAMES)
        for name in NAMES:
            costs["time"][name].append(statistics.median(seconds[name]))
            costs["memory"][name] += memory[name]
            results.setdefault(name, {}).update({f"{key} at {value}": v for key, v in outputs[name].items()})
    tolerances = {f"{key} at {value}": limit for key, limit in step.SAME.items() for value in sizes}
    rows: dict[str, Row] = {}
    for what, by_name in costs.items():
        slopes = {name: [slope(sizes, values)] for name, values in by_name.items()}
        claim = Claim(f"{what} / {axis} ({sizes[0]} to {sizes[-1]})", *NAMES, None, tolerances)
        rows |= evaluate_claims([claim], slopes, results, unit="slope")
    return rows


def main() -> int:
    """Parse the options, measure, and report the rows."""
    options = parse_options(__doc__)
    axes, size = ({"pairs": (2, 4)}, "tiny") if options.quick else (AXES, "t17")
    rows: dict[str, Row] = {}
    for axis, sizes in axes.items():
        rows |= grow(axis, sizes, size, options.rounds)
    return report(rows, options)


if __name__ == "__main__":
    sys.exit(main())
