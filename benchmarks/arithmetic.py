"""The ratios that the matrix products of layers and head allow: `python benchmarks/arithmetic.py`.

Tokens times weights of the model `t17`: how often each token passes the layers, and each response token the
head. Attention, adapters and element-wise operations are not counted, so a measured ratio may be a little
higher.
"""

import sys
from dataclasses import dataclass

import cases

SIZE, BATCH = "t17", 8


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of a set of pairs: those that we compute, those of responses, and TRL's with its padding."""

    ours: int
    responses: int
    padded: int


def count(regime: str, pairs: int) -> Tokens:
    """Count the tokens of the pairs of `step.py` and `impact.py`."""
    drawn = cases.random_pairs(pairs, cases.SHAPES[SIZE][-1], cases.LENGTHS[regime], seed=1)
    batches = [drawn[start : start + BATCH] for start in range(0, pairs, BATCH)]
    widths = [max(len(p.prompt) + len(r) for p in batch for r in p.responses) for batch in batches]
    return Tokens(
        ours=sum(map(len, drawn)),
        responses=sum(len(r) for p in drawn for r in p.responses),
        padded=sum(2 * len(batch) * width for batch, width in zip(batches, widths, strict=True)),
    )


def products(tokens: int, scored: int, layers: int, head: int) -> float:
    """Return the multiplications.

    Args:
        tokens: Tokens that pass the layers.
        scored: Tokens that pass the head.
        layers: How many times each passes the layers.
        head: How many times each passes the head.
    """
    width, mlp, depth, *_, vocabulary = cases.SHAPES[SIZE]
    return layers * tokens * depth * (4 * width**2 + 3 * width * mlp) + head * scored * width * vocabulary


def row(label: str, regime: str, pairs: int, theirs: tuple[int, int], ours: tuple[int, int]) -> str:
    """Format one line: TRL's multiplications over ours, which each pass (layers, head) so many times."""
    tokens = count(regime, pairs)
    their_products = products(tokens.padded, tokens.padded, *theirs)
    ratio = their_products / products(tokens.ours, tokens.responses, *ours)
    passes = f"{theirs[0]} + {theirs[1]} : {ours[0]} + {ours[1]}"
    own = f"{tokens.ours} ({tokens.responses})"
    return f"| {label}, {regime} | {tokens.padded} | {own} | {passes} | {ratio:.2f} |"


def table() -> str:
    """Format all rows in Markdown."""
    lines = [
        "| | TRL's tokens | ours (of responses) | passes of layers + head | possible |",
        "|---|---|---|---|---|",
    ]
    for regime in cases.LENGTHS:
        # Forward and gradient of the states; TRL's head runs its forward twice.
        lines.append(row("step, LoRA / TRL", regime, BATCH, (2, 3), (2, 2)))
    # All parameters: the gradients of the weights as well; online weights also need their product with the
    # gold gradient.
    lines.append(row("step, all parameters / TRL", "PKU-like", BATCH, (3, 4), (3, 4)))
    lines.append(row("step, all parameters, fresh weights / TRL", "PKU-like", BATCH, (3, 4), (4, 6)))
    for regime in cases.LENGTHS:
        lines.append(row("weights and references / TRL's references", regime, 2 * BATCH, (1, 1), (2, 2)))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
