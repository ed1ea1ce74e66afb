"""Where each token of packed pairs is placed: every prompt once, or one padded row a response."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from realignment.likelihood.tokenization import TokenizedPair

SIMILAR_LENGTH = 0.85
"""Sequences at least so long, of the longest among them, share one call of the attention kernel."""


def pack_shared(pairs: Sequence[TokenizedPair]) -> dict[str, Any]:
    """Pack pairs into one row that holds every prompt once.

    A prompt may be empty here; the first token of its responses is then predicted nowhere.

    Args:
        pairs: P pairs.

    Returns:
        The fields of `likelihood.packing.Rows` that say where tokens are, and the sequences that attention
        gathers.
    """
    row = _SharedRow()
    for owner, pair in enumerate(pairs):
        row.append(owner, pair)
    groups, starts = _group_by_length(row.sequences)
    return {
        "input_ids": torch.tensor([row.ids]),
        "position_ids": torch.tensor([row.positions]),
        "is_token": torch.ones(1, len(row.ids), dtype=torch.bool),
        "owner": torch.tensor([row.owners]),
        "sequences": groups,
        "inverse": torch.tensor([starts[sequence] + offset for sequence, offset in row.found_at]),
        "source": torch.tensor(row.sources),
    }


@dataclass
class _SharedRow:
    """The row of `pack_shared` while it is filled.

    Attributes:
        ids: Token of each place.
        positions: Position of each place within its prompt + response.
        owners: Pair of each place.
        found_at: Of each place, a sequence that holds it and its offset there.
        sequences: Places of prompt + response, for every response.
        sources: Place that predicts it, for every response token.
    """

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    found_at: list[tuple[int, int]] = field(default_factory=list)
    sequences: list[list[int]] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)

    def append(self, owner: int, pair: TokenizedPair) -> None:
        """Append a pair's prompt and, behind it, each of its responses."""
        size = len(pair.prompt)
        prompt = self._append_tokens(pair.prompt, start=0)
        for response in pair.responses:
            places = self._append_tokens(response, start=size)
            # Each token is predicted by the one before it, the first by the prompt's last.
            self.sources += [*prompt[-1:], *places[:-1]]
            self.sequences.append(prompt + places)
        self.owners += [owner] * len(pair)

    def _append_tokens(self, tokens: list[int], *, start: int) -> list[int]:
        """Append tokens at positions from `start` on; returns their places.

        They are found in the next sequence: a prompt in that of its first response, a response in its own.
        """
        places = list(range(len(self.ids), len(self.ids) + len(tokens)))
        positions = range(start, start + len(tokens))
        self.ids += tokens
        self.positions += positions
        self.found_at += [(len(self.sequences), position) for position in positions]
        return places


def _group_by_length(sequences: Sequence[list[int]]) -> tuple[tuple[Tensor, ...], dict[int, int]]:
    """Pad sequences of similar length together.

    Returns:
        Places, shape (R_g, K_g) for each group g, and where each sequence begins in all groups flattened.
    """
    # Longest first, so that a group's first member is its width.
    groups: list[list[int]] = []
    for index in sorted(range(len(sequences)), key=lambda i: len(sequences[i]), reverse=True):
        if groups and len(sequences[index]) >= SIMILAR_LENGTH * len(sequences[groups[-1][0]]):
            groups[-1].append(index)
        else:
            groups.append([index])
    padded: list[Tensor] = []
    starts: dict[int, int] = {}
    end = 0
    for group in groups:
        width = len(sequences[group[0]])
        lines = []
        for index in group:
            places = sequences[index]
            # The last token is repeated: causal attention shows the copies to no token before them.
            lines.append(places + places[-1:] * (width - len(places)))
            starts[index] = end
            end += width
        padded.append(torch.tensor(lines))
    return tuple(padded), starts


def pack_separate(pairs: Sequence[TokenizedPair], pad_id: int) -> dict[str, Any]:
    """Pack one row a response, padded at its end, each with the whole prompt.

    Args:
        pairs: P pairs.
        pad_id: Fills the rows.

    Returns:
        The fields of `likelihood.packing.Rows` that say where tokens are; no sequences.
    """
    width = max(pair.width for pair in pairs)
    shape = (sum(len(pair.responses) for pair in pairs), width)
    ids = torch.full(shape, pad_id)
    owner = torch.empty(shape, dtype=torch.long)
    is_token = torch.zeros(shape, dtype=torch.bool)
    sources: list[int] = []
    row = 0
    for index, pair in enumerate(pairs):
        for response in pair.responses:
            size = len(pair.prompt) + len(response)
            ids[row, :size] = torch.tensor([*pair.prompt, *response])
            is_token[row, :size] = True
            owner[row] = index
            # One place before each response token, in rows numbered one after another.
            sources += range(row * width + len(pair.prompt) - 1, row * width + size - 1)
            row += 1
    return {
        "input_ids": ids,
        "position_ids": torch.arange(width).expand(shape).contiguous(),
        "is_token": is_token,
        "owner": owner,
        "sequences": (),
        "inverse": torch.empty(0, dtype=torch.long),
        "source": torch.tensor(sources),
    }
