"""The output head: hidden states → logits, a tile of tokens at a time."""

from dataclasses import dataclass

import torch
from torch import Tensor

TILE_BYTES = {"cpu": 3 * 2**23, "cuda": 2**28}
"""Size of a tile of float32 logits: as many tokens as keep the matrix product fast."""

PRODUCT_WIDTH = 512
"""Words of the vocabulary in one product on a CPU: a fifth faster than all of them at once."""

BLOCK_BYTES = 2**20
"""Size of the rows of a tile that are worked on at once on a CPU: the passes over them stay in the cache."""


@dataclass(frozen=True, slots=True)
class Head:
    """What turns a hidden state into logits: logits = cap(scale · W h), cap(z) = c · tanh(z / c).

    Attributes:
        weight: W, the output embedding, shape (V, d).
        softcap: c of Gemma's soft-capping; None: no cap.
        scale: Factor of Cohere's and Granite's logits.
    """

    weight: Tensor
    softcap: float | None = None
    scale: float = 1.0

    def logits(self, hidden: Tensor, out: Tensor | None = None) -> Tensor:
        """Compute the logits of some tokens.

        Args:
            hidden: Shape (N, d).
            out: Logits that are no longer needed, of N tokens or more: on a CPU new memory of this size costs
                as much as the passes over it. Not with gradient.

        Returns:
            Shape (N, V), in float32 or better.
        """
        logits = _product(hidden, self.weight, out)
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def slope(self, logits: Tensor) -> Tensor | float:
        """Return ∂ logits / ∂ (W h), of the logits' shape; a number where it is constant."""
        if self.softcap is None:
            return self.scale
        # d tanh(z)/dz = 1 − tanh²(z), and tanh(z) = logits / c is at hand.
        return self.scale * (1 - (logits / self.softcap) ** 2)

    def detach(self) -> "Head":
        """Return the same head as a constant."""
        return Head(self.weight.detach(), self.softcap, self.scale)


def _product(hidden: Tensor, weight: Tensor, out: Tensor | None) -> Tensor:
    """W h of each token, shape (N, V), in float32 or better."""
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    if torch.is_grad_enabled() or hidden.device.type != "cpu":
        return (hidden @ weight.t()).to(dtype)
    logits = hidden.new_empty(len(hidden), len(weight), dtype=dtype) if out is None else out[: len(hidden)]
    if hidden.dtype != dtype:
        return logits.copy_(hidden @ weight.t())
    for words, columns in zip(weight.split(PRODUCT_WIDTH), logits.split(PRODUCT_WIDTH, dim=1), strict=True):
        torch.mm(hidden, words.t(), out=columns)
    return logits


def tile_size(head: Head) -> int:
    """Return how many tokens have their logits in memory at once."""
    vocabulary = head.weight.shape[0]
    size = TILE_BYTES.get(head.weight.device.type, TILE_BYTES["cuda"])
    return max(16, size // (4 * vocabulary))  # four bytes a logit


def row_blocks(logits: Tensor) -> list[slice]:
    """Divide the rows of a tile into blocks that stay in a CPU's cache while several passes go over them.

    On a GPU all rows are one block, for each pass is a kernel to launch.
    """
    rows, vocabulary = logits.shape
    size = max(1, BLOCK_BYTES // (4 * vocabulary)) if logits.device.type == "cpu" else max(rows, 1)
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def scale_in_place(values: Tensor, factor: Tensor | float) -> Tensor:
    """Multiply in place; a factor of one costs no pass over the tile."""
    return values if isinstance(factor, float) and factor == 1.0 else values.mul_(factor)


def row_dot(first: Tensor, second: Tensor) -> Tensor:
    """Return the inner product of each pair of rows, without a temporary product of the tile's size."""
    return torch.bmm(first[:, None, :], second[:, :, None])[:, 0, 0]


def subtract_one_hot(probabilities: Tensor, target: Tensor) -> Tensor:
    """Turn q into q − 𝟙[target], in place: in float32 the difference is exact where q is close to one.

    Args:
        probabilities: q, shape (N, V).
        target: Token ids, shape (N, 1).

    Returns:
        The same tensor.
    """
    return probabilities.scatter_add_(1, target, probabilities.new_full((1, 1), -1.0).expand_as(target))
