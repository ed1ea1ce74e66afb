"""The output head: hidden states → logits, a tile of tokens at a time."""

from dataclasses import dataclass

import torch
from torch import Tensor

TILE_BYTES = {"cpu": 3 * 2**23, "cuda": 2**28}
"""Of a tile of float32 logits: as many tokens as keep the matrix product fast."""

PRODUCT_WIDTH = 512
"""Words of the vocabulary in one product on a CPU: a fifth faster than all of them at once."""

BLOCK_BYTES = 2**20
"""Of the rows of a tile that are worked on at once on a CPU: the passes over them stay in the cache."""


@dataclass(frozen=True, slots=True)
class Head:
    """What turns a hidden state into logits: logits = cap(scale · W h), cap(z) = c · tanh(z / c).

    Attributes:
        weight: W, the output embedding, shape (V, d).
        softcap: c of Gemma's soft-capping; None: no cap.
        scale: Of Cohere's and Granite's logits.
    """

    weight: Tensor
    softcap: float | None = None
    scale: float = 1.0

    def logits(self, hidden: Tensor, out: Tensor | None = None) -> Tensor:
        """Shape (N, V), in float32 or better.

        Args:
            hidden: Shape (N, d).
            out: Logits that are no longer needed, of N tokens or more: on a CPU new memory of this size costs
                as much as the passes over it. Not with gradient.
        """
        exact = _product(hidden, self.weight, out)
        if self.scale != 1.0:
            exact = exact * self.scale
        return exact if self.softcap is None else self.softcap * torch.tanh(exact / self.softcap)

    def slope(self, logits: Tensor) -> Tensor | float:
        """∂ logits / ∂ (W h), of the logits' shape; a number where it is constant."""
        if self.softcap is None:
            return self.scale
        return self.scale * (1 - (logits / self.softcap) ** 2)

    def detach(self) -> "Head":
        """The same head as a constant."""
        return Head(self.weight.detach(), self.softcap, self.scale)


def _product(hidden: Tensor, weight: Tensor, out: Tensor | None) -> Tensor:
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    if torch.is_grad_enabled() or hidden.device.type != "cpu":
        return (hidden @ weight.t()).to(dtype)
    logits = hidden.new_empty(len(hidden), len(weight), dtype=dtype) if out is None else out[: len(hidden)]
    if hidden.dtype != dtype:
        return logits.copy_(hidden @ weight.t())
    for part, columns in zip(weight.split(PRODUCT_WIDTH), logits.split(PRODUCT_WIDTH, dim=1), strict=True):
        torch.mm(hidden, part.t(), out=columns)
    return logits


def tile_of(head: Head) -> int:
    """Tokens of a tile."""
    vocabulary, device = head.weight.shape[0], head.weight.device.type
    return max(16, TILE_BYTES.get(device, TILE_BYTES["cuda"]) // (4 * vocabulary))


def blocks_of(logits: Tensor) -> list[slice]:
    """The rows of a tile, some at a time; on a GPU all at once, for each pass is a kernel to launch."""
    rows, vocabulary = logits.shape
    size = max(1, BLOCK_BYTES // (4 * vocabulary)) if logits.device.type == "cpu" else max(rows, 1)
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def scaled_by(values: Tensor, slope: Tensor | float) -> Tensor:
    """The product, in place; a pass over the tile is spared where the slope is one."""
    return values if isinstance(slope, float) and slope == 1.0 else values.mul_(slope)


def row_dot(first: Tensor, second: Tensor) -> Tensor:
    """Inner product of each row, without a product of the tile's size."""
    return torch.bmm(first[:, None, :], second[:, :, None])[:, 0, 0]


def less_target(probabilities: Tensor, target: Tensor) -> Tensor:
    """Q − 𝟙[target], in place: in float32 the difference is exact where q is close to one."""
    return probabilities.scatter_add_(1, target, probabilities.new_full((1, 1), -1.0).expand_as(target))
