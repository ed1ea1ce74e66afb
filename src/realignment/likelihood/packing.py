"""Pairs laid out as tokens without padding: each prompt once, and where every response token is predicted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from realignment.likelihood.limits import PositionLimit, check_tokens
from realignment.likelihood.tokenization import TokenizedPair

SIMILAR = 0.85
"""Sequences at least so long, of the longest among them, share one call of the attention kernel."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Pairs laid out for one forward pass, and where each response token is predicted.

    P pairs, R responses, N response tokens; B × L places for tokens, numbered row by row.

    Two layouts. *Shared*: one row (B = 1) of all tokens, ``[prompt | response | response …]`` pair after
    pair, nothing twice, no padding; attention takes the R sequences ``prompt + response`` apart
    (`sequences`). *Separate*: one padded row a response with its own copy of the prompt (B = R), for models
    whose layers mix tokens otherwise than by attention.

    Attributes:
        input_ids: Shape (B, L).
        position_ids: Shape (B, L); positions restart at the end of the prompt for each response.
        is_token: Whether a place holds a token, shape (B, L); all true in the shared layout.
        owner: Which pair a place belongs to, shape (B, L).
        sequences: Places of each sequence's tokens, those of similar length together, padded at their ends,
            shape (R_g, K_g) each, Σ R_g = R; none: separate.
        home: Where in `sequences`, group after group and row by row, each place is looked up again, shape
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
    home: Tensor
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

    def to(self, device: torch.device | str) -> "Rows":
        """The same rows on another device."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        sequences = tuple(group.to(device) for group in moved.pop("sequences"))
        return Rows(sequences=sequences, **{name: tensor.to(device) for name, tensor in moved.items()})


@dataclass(frozen=True, slots=True)
class Layout:
    """How a model's pairs are laid out.

    Attributes:
        pad_id: Fills rows of the separate layout; no real token attends to it.
        share_prompts: Which of the two layouts of `Rows`; see `likelihood.layout_probe.can_share_prompts`.
        positions: How long the model lets a sequence be; None: any length.
    """

    pad_id: int
    share_prompts: bool = True
    positions: PositionLimit | None = None

    def __call__(self, pairs: Sequence[TokenizedPair]) -> Rows:
        """The rows of these pairs.

        Raises:
            LikelihoodError: One is empty, or longer than the model's positions.
        """
        if self.positions is not None:
            self.positions.check(pairs)
        return lay_out(pairs, pad_id=self.pad_id, share_prompts=self.share_prompts)

    def batches(self, pairs: Sequence[TokenizedPair], *, budget: int | None) -> Iterator[list[int]]:
        """Indices of pairs in batches of similar length.

        Args:
            pairs: What is to be laid out.
            budget: Places for tokens in a batch (but one pair at least); None: all in one.

        Raises:
            LikelihoodError: A pair is longer than the model's positions: before anything is computed.
        """
        if self.positions is not None:
            self.positions.check(pairs)
        widths = [len(pair.prompt) + max(map(len, pair.responses)) for pair in pairs]
        batch: list[int] = []
        for index in sorted(range(len(pairs)), key=widths.__getitem__, reverse=True):
            grown = [*batch, index]
            if batch and budget is not None and self._places([pairs[i] for i in grown]) > budget:
                yield batch
                grown = [index]
            batch = grown
        if batch:
            yield batch

    def _places(self, pairs: Sequence[TokenizedPair]) -> int:
        if self.share_prompts:
            return sum(map(len, pairs))
        width = max(len(pair.prompt) + max(map(len, pair.responses)) for pair in pairs)
        return width * sum(len(pair.responses) for pair in pairs)


def lay_out(pairs: Sequence[TokenizedPair], *, pad_id: int, share_prompts: bool = True) -> Rows:
    """Lay pairs out for one forward pass; the first token of a response is predicted by the prompt's last.

    With shared prompts every token is computed once, whatever the lengths (prefix sharing, arXiv:2410.20305).

    Args:
        pairs: What to lay out, at least one; prompts and responses of at least one token.
        pad_id: Fills rows of the separate layout; no real token attends to it.
        share_prompts: Which of the two layouts of `Rows`.

    Raises:
        LikelihoodError: A prompt or a response has no token.
    """
    for index, pair in enumerate(pairs):
        check_tokens(index, pair)
    counts = torch.tensor([len(pair.responses) for pair in pairs])
    owners = torch.arange(len(pairs)).repeat_interleave(counts)
    lengths = torch.tensor([len(response) for pair in pairs for response in pair.responses])
    common: dict[str, Any] = {
        "target": torch.tensor(
            [token for pair in pairs for response in pair.responses for token in response]
        ),
        "response": torch.arange(len(lengths)).repeat_interleave(lengths),
        "pair": owners,
        "length": lengths,
        "first": counts.cumsum(0) - counts,
    }
    return Rows(**common, **(share(pairs) if share_prompts else _separate(pairs, pad_id)))


def share(pairs: Sequence[TokenizedPair]) -> dict[str, Any]:
    """One row, every prompt once, and the sequences to which attention takes it apart: fields of `Rows`.

    A prompt may be empty here; the first token of its responses is then predicted nowhere.
    """
    ids: list[int] = []
    positions: list[int] = []
    owners: list[int] = []
    sources: list[int] = []
    sequences: list[list[int]] = []
    home: list[tuple[int, int]] = []
    for index, pair in enumerate(pairs):
        prompt = list(range(len(ids), len(ids) + len(pair.prompt)))
        home += [(len(sequences), offset) for offset in range(len(prompt))]
        ids += pair.prompt
        positions += range(len(prompt))
        for response in pair.responses:
            places = list(range(len(ids), len(ids) + len(response)))
            home += [(len(sequences), len(prompt) + offset) for offset in range(len(places))]
            sources += [*prompt[-1:], *places[:-1]]
            sequences.append(prompt + places)
            ids += response
            positions += range(len(prompt), len(prompt) + len(response))
        owners += [index] * len(pair)
    groups, starts = _group(sequences)
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "is_token": torch.ones(1, len(ids), dtype=torch.bool),
        "owner": torch.tensor([owners]),
        "sequences": groups,
        "home": torch.tensor([starts[row] + offset for row, offset in home]),
        "source": torch.tensor(sources),
    }


def _group(sequences: Sequence[list[int]]) -> tuple[tuple[Tensor, ...], dict[int, int]]:
    """Sequences of similar length padded together, and where each begins in all that is padded."""
    groups: list[list[int]] = []
    for index in sorted(range(len(sequences)), key=lambda i: len(sequences[i]), reverse=True):
        if groups and len(sequences[index]) >= SIMILAR * len(sequences[groups[-1][0]]):
            groups[-1].append(index)
        else:
            groups.append([index])
    padded: list[Tensor] = []
    starts: dict[int, int] = {}
    end = 0
    for group in groups:
        width = len(sequences[group[0]])
        starts |= {index: end + row * width for row, index in enumerate(group)}
        end += len(group) * width
        # A sequence's last token is repeated: causal attention shows the copies to no token before them.
        members = (sequences[index] for index in group)
        padded.append(torch.tensor([places + places[-1:] * (width - len(places)) for places in members]))
    return tuple(padded), starts


def _separate(pairs: Sequence[TokenizedPair], pad_id: int) -> dict[str, Any]:
    """One row a response, padded at its end, each with the whole prompt."""
    texts = [
        (index, pair.prompt, response) for index, pair in enumerate(pairs) for response in pair.responses
    ]
    width = max(len(prompt) + len(response) for _, prompt, response in texts)
    shape = (len(texts), width)
    ids, owner, real = torch.full(shape, pad_id), torch.empty(shape, dtype=torch.long), torch.zeros(shape)
    sources = []
    for row, (index, prompt, response) in enumerate(texts):
        size = len(prompt) + len(response)
        ids[row, :size] = torch.tensor([*prompt, *response])
        owner[row], real[row, :size] = index, 1
        sources.append(range(row * width + len(prompt) - 1, row * width + size - 1))
    return {
        "input_ids": ids,
        "position_ids": torch.arange(width).expand(shape).contiguous(),
        "is_token": real.bool(),
        "owner": owner,
        "sequences": (),
        "home": torch.empty(0, dtype=torch.long),
        "source": torch.tensor(list(chain.from_iterable(sources))),
    }
