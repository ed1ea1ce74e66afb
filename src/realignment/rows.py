"""Pairs laid out as rows of tokens: prompt and responses side by side, and where each token is predicted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from realignment.records import RealignmentError
from realignment.tokenization import TokenizedPair


class LikelihoodError(RealignmentError):
    """Likelihoods cannot be computed exactly."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Pairs laid out for one forward pass, and where each response token is predicted.

    B rows of at most L tokens; R responses over all rows; N response tokens over all responses.

    Attributes:
        input_ids: Shape (B, L).
        position_ids: Shape (B, L); positions restart at the end of the prompt for each response.
        attention_mask: (B, 1, L, L) additive mask under which no response sees another.
        row: Row of each token, shape (N,).
        source: Position of the hidden state that predicts the token, shape (N,).
        target: The token's id, shape (N,).
        response: Which response the token belongs to, shape (N,).
        pair: Which pair of the batch each response belongs to, shape (R,).
        length: Tokens of each response, shape (R,).
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor
    row: Tensor
    source: Tensor
    target: Tensor
    response: Tensor
    pair: Tensor
    length: Tensor

    def to(self, device: torch.device | str) -> "Rows":
        """The same rows on another device."""
        return Rows(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def select(self, pairs: Tensor) -> "Rows":
        """The rows of some pairs alone (one row a pair), renumbered.

        Args:
            pairs: Indices of pairs, ascending, shape (K,).
        """
        rank = torch.full((self.input_ids.shape[0],), -1, device=pairs.device)
        rank[pairs] = torch.arange(len(pairs), device=pairs.device)
        kept = rank[self.pair] >= 0
        response_rank = torch.cumsum(kept, 0) - 1
        tokens = kept[self.response]
        return Rows(
            input_ids=self.input_ids[pairs],
            position_ids=self.position_ids[pairs],
            attention_mask=self.attention_mask[pairs],
            row=rank[self.row[tokens]],
            source=self.source[tokens],
            target=self.target[tokens],
            response=response_rank[self.response[tokens]],
            pair=rank[self.pair[kept]],
            length=self.length[kept],
        )


def lay_out(pairs: Sequence[TokenizedPair], *, pad_id: int, dtype: torch.dtype = torch.float32) -> Rows:
    """One row a pair, ``[prompt | response | response …]``; no response sees another.

    So the prompt is computed once (prefix sharing, arXiv:2410.20305). The first token of every response is
    predicted from the prompt's last position.

    Args:
        pairs: What to lay out, at least one; prompts and responses of at least one token.
        pad_id: Fills rows to equal length; padding is never attended to by a real token.
        dtype: Of the additive mask: the dtype the model computes in.

    Raises:
        LikelihoodError: A prompt or a response has no token.
    """
    shape = (len(pairs), max(map(len, pairs)))
    ids, positions = torch.full(shape, pad_id), torch.zeros(shape, dtype=torch.long)
    visible = torch.eye(shape[1], dtype=torch.bool).repeat(len(pairs), 1, 1)
    tokens: list[tuple[int, int, int, int]] = []
    owners: list[int] = []
    lengths: list[int] = []
    for index, pair in enumerate(pairs):
        _check_tokens(index, pair)
        prompt_end = start = len(pair.prompt)
        ids[index, : len(pair)] = torch.tensor([*pair.prompt, *(t for r in pair.responses for t in r)])
        positions[index, :start] = torch.arange(start)
        visible[index, : len(pair)] |= torch.ones(len(pair), shape[1], dtype=torch.bool).tril()
        for response in pair.responses:
            end = start + len(response)
            positions[index, start:end] = torch.arange(prompt_end, prompt_end + len(response))
            visible[index, start:end, prompt_end:start] = False
            sources = [prompt_end - 1, *range(start, end - 1)]
            tokens += [(index, s, token, len(owners)) for s, token in zip(sources, response, strict=True)]
            owners.append(index)
            lengths.append(len(response))
            start = end
    row, source, target, owner = torch.tensor(tokens).unbind(1)
    mask = torch.zeros(visible.shape, dtype=dtype).masked_fill_(~visible, torch.finfo(dtype).min)[:, None]
    pair_of, length = torch.tensor(owners), torch.tensor(lengths)
    return Rows(ids, positions, mask, row, source, target, owner, pair_of, length)


def _check_tokens(index: int, pair: TokenizedPair) -> None:
    empty = [f"response {slot}" for slot, response in enumerate(pair.responses) if not response]
    if pair.prompt and pair.responses and not empty:
        return
    found = "prompt" if not pair.prompt else ", ".join(empty) or "list of responses"
    raise LikelihoodError(
        f"Pair {index} has an empty {found}: expected at least one token, for a response is predicted from "
        "its prompt and ends with the end-of-turn token. Drop the pair."
    )


def batches_by_tokens(lengths: Sequence[int], *, budget: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, of a padded size within the budget (but one row at least)."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if batch and lengths[batch[0]] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
