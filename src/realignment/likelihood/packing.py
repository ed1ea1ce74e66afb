"""Pairs packed into rows for one forward pass, and how a data set is divided into such passes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import chain

import torch
from torch import Tensor

from realignment.likelihood.limits import PositionLimit, check_tokens
from realignment.likelihood.placement import pack_separate, pack_shared
from realignment.likelihood.tokenization import TokenizedPair


@dataclass(frozen=True, slots=True)
class Rows:
    """Pairs packed for one forward pass, and where each response token is predicted.

    P pairs, R responses, N response tokens; B × L places for tokens, numbered row by row.

    Two layouts. *Shared*: one row (B = 1) of all tokens, ``[prompt | response | response …]`` pair after
    pair, nothing twice, no padding; attention gathers the R sequences ``prompt + response`` out of it
    (`sequences`). *Separate*: one padded row a response with its own copy of the prompt (B = R), for models
    whose layers mix tokens otherwise than by attention.

    Attributes:
        input_ids: Shape (B, L).
        position_ids: Shape (B, L); positions restart at the end of the prompt for each response.
        is_token: Whether a place holds a token, shape (B, L); all true in the shared layout.
        owner: Which pair a place belongs to, shape (B, L).
        sequences: Places of each sequence's tokens, those of similar length together, padded at their ends,
            shape (R_g, K_g) each, Σ R_g = R; none: separate.
        inverse: Where in `sequences`, group after group and row by row, each place is found again, shape
            (B·L,); (0,): separate.
        source: Place of the hidden state that predicts the token, shape (N,).
        target: The token's id, shape (N,).
        response: Which response the token belongs to, shape (N,).
        pair: Which pair each response belongs to, shape (R,), ascending.
        length: Tokens of each response, shape (R,).
        first: Index of each pair's first response, shape (P,).
    """

    input_ids: Tensor
    position_ids: Tensor
    is_token: Tensor
    owner: Tensor
    sequences: tuple[Tensor, ...]
    inverse: Tensor
    source: Tensor
    target: Tensor
    response: Tensor
    pair: Tensor
    length: Tensor
    first: Tensor

    @property
    def shares_prompts(self) -> bool:
        """Whether the layout is the shared one."""
        return bool(self.sequences)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and places in a row, (B, L)."""
        return self.input_ids.shape[0], self.input_ids.shape[1]

    def to(self, device: torch.device | str) -> "Rows":
        """Return the same rows on another device."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        sequences = tuple(group.to(device) for group in tensors.pop("sequences"))
        return Rows(sequences=sequences, **{name: tensor.to(device) for name, tensor in tensors.items()})


@dataclass(frozen=True, slots=True)
class Layout:
    """How a model's pairs are packed into rows.

    Attributes:
        pad_id: Fills rows of the separate layout; no real token attends to it.
        share_prompts: Which of the two layouts of `Rows`; see `likelihood.layout_probe.can_share_prompts`.
        positions: How long the model lets a sequence be; None: any length.
    """

    pad_id: int
    share_prompts: bool = True
    positions: PositionLimit | None = None

    def __call__(self, pairs: Sequence[TokenizedPair]) -> Rows:
        """Pack pairs into the rows of one forward pass.

        Args:
            pairs: P pairs.

        Returns:
            The rows, on the CPU.

        Raises:
            LikelihoodError: A pair is empty, or longer than the model's positions.
        """
        if self.positions is not None:
            self.positions.check(pairs)
        return pack_pairs(pairs, pad_id=self.pad_id, share_prompts=self.share_prompts)

    def batches(self, pairs: Sequence[TokenizedPair], *, budget: int | None) -> Iterator[list[int]]:
        """Divide pairs into batches of similar length.

        Args:
            pairs: Pairs to be packed.
            budget: Places for tokens in a batch (but one pair at least); None: all in one.

        Yields:
            Indices of a batch's pairs, longest first.

        Raises:
            LikelihoodError: A pair is longer than the model's positions: before anything is computed.
        """
        if self.positions is not None:
            self.positions.check(pairs)
        batch: list[int] = []
        for index in sorted(range(len(pairs)), key=lambda i: pairs[i].width, reverse=True):
            grown = [*batch, index]
            if batch and budget is not None and self._places([pairs[i] for i in grown]) > budget:
                yield batch
                grown = [index]
            batch = grown
        if batch:
            yield batch

    def pack_batches(
        self, pairs: Sequence[TokenizedPair], *, budget: int | None, device: torch.device | str
    ) -> Iterator[tuple[list[int], Rows]]:
        """Pack pairs of similar length into the rows of one forward pass after another.

        Args:
            pairs: Pairs to be packed.
            budget: See `batches`.
            device: Where the rows go.

        Yields:
            Indices of a batch's pairs, and their rows.
        """
        for members in self.batches(pairs, budget=budget):
            yield members, self([pairs[i] for i in members]).to(device)

    def _places(self, pairs: Sequence[TokenizedPair]) -> int:
        """B · L of these pairs' rows."""
        if self.share_prompts:
            return sum(map(len, pairs))
        width = max(pair.width for pair in pairs)
        return width * sum(len(pair.responses) for pair in pairs)


def pack_pairs(pairs: Sequence[TokenizedPair], *, pad_id: int, share_prompts: bool = True) -> Rows:
    """Pack pairs for one forward pass; the first token of a response is predicted by the prompt's last.

    With shared prompts every token is computed once, whatever the lengths (prefix sharing, arXiv:2410.20305).

    Args:
        pairs: At least one response each.
        pad_id: Fills the separate layout's rows.
        share_prompts: Whether one copy of a prompt serves all its responses.

    Returns:
        The rows, on the CPU.

    Raises:
        LikelihoodError: A prompt or response has no token.
    """
    for index, pair in enumerate(pairs):
        check_tokens(index, pair)
    responses = list(chain.from_iterable(pair.responses for pair in pairs))
    counts = torch.tensor([len(pair.responses) for pair in pairs])  # (P,)
    lengths = torch.tensor([len(response) for response in responses])  # (R,)
    places = pack_shared(pairs) if share_prompts else pack_separate(pairs, pad_id)
    return Rows(
        target=torch.tensor(list(chain.from_iterable(responses))),
        response=torch.arange(len(lengths)).repeat_interleave(lengths),
        pair=torch.arange(len(pairs)).repeat_interleave(counts),
        length=lengths,
        first=counts.cumsum(0) - counts,
        **places,
    )
