"""The output head: hidden states → logits, a tile of tokens at a time."""

from dataclasses import dataclass

import torch
from torch import Tensor

TILE_BYTES = 2**24
"""Of a tile of float32 logits: large enough for the matrix product, small enough for the caches."""


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

    def logits(self, hidden: Tensor) -> Tensor:
        """Shape (N, V), in float32 or better."""
        logits = hidden @ self.weight.t()
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
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


def tile_of(head: Head) -> int:
    """Tokens of a tile."""
    return max(16, TILE_BYTES // (4 * head.weight.shape[0]))


def scaled_by(values: Tensor, slope: Tensor | float) -> Tensor:
    """The product, in place; a pass over the tile is spared where the slope is one."""
    return values if isinstance(slope, float) and slope == 1.0 else values.mul_(slope)


def row_dot(first: Tensor, second: Tensor) -> Tensor:
    """Inner product of each row, without a product of the tile's size."""
    return torch.bmm(first[:, None, :], second[:, :, None])[:, 0, 0]


def less_target(probabilities: Tensor, target: Tensor) -> Tensor:
    """Q − 𝟙[target], in place: in float32 the difference is exact where q is close to one."""
    return probabilities.scatter_add_(1, target, probabilities.new_full((1, 1), -1.0).expand_as(target))
