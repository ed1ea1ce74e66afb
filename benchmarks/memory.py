"""Peak memory of a training step with a vocabulary of 49152: `python benchmarks/memory.py [--json FILE]`.

Memory on top of what model and batch take before the step; 8 PKU-like pairs, each side in its own process.
"""

import sys
from functools import partial

import cases
import step
from harness import Claim, Row, evaluate_claims, measure_peaks, parse_options, report

NAMES = (step.TRL, step.TRL_RESPONSES, step.TRL_DEFAULT, step.PUBLISHED)
GOALS = {step.TRL: 6.0}


def compare(label: str, case: step.Case) -> dict[str, Row]:
    """Compare all sides on one case."""
    memory, results = measure_peaks(partial(step.build, case), (*NAMES, step.STATIC))
    claims = [
        Claim(f"{label}: static weights / {name}", name, step.STATIC, GOALS.get(name), step.SAME)
        for name in NAMES
    ]
    return evaluate_claims(claims, memory, results, unit="MiB")


def main() -> int:
    """Parse the options, measure, and report the rows."""
    options = parse_options(__doc__)
    size, count = ("tiny", 3) if options.quick else ("t17v", 8)
    pairs = cases.random_pairs(count, cases.SHAPES[size][-1], cases.LENGTHS["PKU-like"], seed=1)
    rows = compare("LoRA", step.Case(pairs, size, lora=True))
    if not options.quick:
        rows |= compare("all parameters", step.Case(pairs, size, lora=False))
    return report(rows, options)


if __name__ == "__main__":
    sys.exit(main())
