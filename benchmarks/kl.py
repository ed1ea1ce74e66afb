"""KL of two models over the full vocabulary, value and gradient: `python benchmarks/kl.py [--json FILE]`.

512 response tokens, width 576, vocabulary 49152 (SmolLM2-135M), head frozen as with LoRA.
"""

import sys
from functools import partial

import ours
import peers
import torch
from harness import Call, Claim, alternate, evaluate_claims, measure_peaks, parse_options, report
from torch import Tensor

OURS, PUBLISHED, DENSE, TRL, EXACT = (
    "ours",
    "published",
    "`F.kl_div`",
    "TRL's kernel",
    "`F.kl_div` in float64",
)
PEERS = {PUBLISHED: peers.published_kl, DENSE: peers.dense_kl, TRL: peers.trl_kl, EXACT: peers.dense_kl}
SPEED, MEMORY = {PUBLISHED: 1.5, TRL: 2.5}, {PUBLISHED: 10.0, TRL: 10.0}
SAME = {"kl": 1e-5, "gradient": 1e-4}


def tensors(quick: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Draw hidden states of the policy, the head, and hidden states of the reference."""
    # The noise gives a KL of 0.02 nats per token in both: at a KL near zero, a relative error means nothing.
    tokens, width, vocabulary, noise = (64, 32, 1000, 0.6) if quick else (512, 576, 49152, 0.15)
    generator = torch.Generator().manual_seed(0)
    head = 0.06 * torch.randn(vocabulary, width, generator=generator)
    reference = 2 * torch.randn(tokens, width, generator=generator)
    return reference + noise * torch.randn(tokens, width, generator=generator), head, reference


def build(quick: bool, name: str) -> Call:
    """Build the call of the named method."""
    hidden, head, reference = tensors(quick)
    if name == OURS:
        return lambda: ours.kl(hidden, head, reference)
    if name == EXACT:
        hidden, head, reference = hidden.double(), head.double(), reference.double()
    return lambda: peers.kl_of(PEERS[name], hidden, head, reference)


def main() -> int:
    """Parse the options, measure, and report the rows."""
    options = parse_options(__doc__)
    build_named = partial(build, options.quick)
    costs, results = alternate({name: build_named(name) for name in (*PEERS, OURS)}, rounds=options.rounds)
    faster = [Claim(f"time / {name}", name, OURS, SPEED.get(name), SAME) for name in PEERS]
    rows = evaluate_claims(faster, costs, results)
    memory, results = measure_peaks(build_named, (*PEERS, OURS))
    smaller = [Claim(f"memory / {name}", name, OURS, MEMORY.get(name), SAME) for name in PEERS]
    rows |= evaluate_claims(smaller, memory, results, unit="MiB")
    return report(rows, options)


if __name__ == "__main__":
    sys.exit(main())
