"""What ratios the products of layers and head allow at all: `python benchmarks/arithmetic.py`.

Tokens times weights of the model `t17`: how often each token passes the layers, and each scored one the head.
Attention, adapters and passes over elements count nothing, so a measured ratio may be a little above it.
"""

import sys
from dataclasses import dataclass

import cases

SIZE, BATCH = "t17", 8


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of a set of pairs: ours, of responses, and TRL's with its padding."""

    ours: int
    responses: int
    padded: int


def count(regime: str, pairs: int) -> Tokens:
    """The pairs of `step.py` and `impact.py`."""
    drawn = cases.random_pairs(pairs, cases.SHAPES[SIZE][-1], cases.LENGTHS[regime], seed=1)
    batches = [drawn[start : start + BATCH] for start in range(0, pairs, BATCH)]
    widths = [max(len(p.prompt) + len(r) for p in batch for r in p.responses) for batch in batches]
    return Tokens(
        ours=sum(map(len, drawn)),
        responses=sum(len(r) for p in drawn for r in p.responses),
        padded=sum(2 * len(batch) * width for batch, width in zip(batches, widths, strict=True)),
    )


def products(tokens: int, scored: int, layers: int, head: int) -> float:
    """Multiplications, where a token passes the layers and a scored one the head so many times."""
    width, mlp, depth, *_, vocabulary = cases.SHAPES[SIZE]
    return layers * tokens * depth * (4 * width**2 + 3 * width * mlp) + head * scored * width * vocabulary


def row(label: str, regime: str, pairs: int, theirs: tuple[int, int], ours: tuple[int, int]) -> str:
    """One line: products of TRL's over ours."""
    t = count(regime, pairs)
    ratio = products(t.padded, t.padded, *theirs) / products(t.ours, t.responses, *ours)
    passes = f"{theirs[0]} + {theirs[1]} : {ours[0]} + {ours[1]}"
    return f"| {label}, {regime} | {t.padded} | {t.ours} ({t.responses}) | {passes} | {ratio:.2f} |"


def table() -> str:
    """All rows in Markdown."""
    lines = [
        "| | TRL's tokens | ours (of responses) | passes of layers + head | possible |",
        "|---|---|---|---|---|",
    ]
    for regime in cases.LENGTHS:
        # Forward and gradient of the states; TRL's head runs its forward twice.
        lines.append(row("step, LoRA / TRL", regime, BATCH, (2, 3), (2, 2)))
    # Beside them the weights' gradients; fresh ones need the product with the gold gradient as well.
    lines.append(row("step, all parameters / TRL", "PKU-like", BATCH, (3, 4), (3, 4)))
    lines.append(row("step, all parameters, fresh weights / TRL", "PKU-like", BATCH, (3, 4), (4, 6)))
    for regime in cases.LENGTHS:
        lines.append(row("weights and references / TRL's references", regime, 2 * BATCH, (1, 1), (2, 2)))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
