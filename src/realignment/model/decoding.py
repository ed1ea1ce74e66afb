"""Decode many prompts together: rows that have ended leave the batch, and waiting prompts take their places.

The scheduling is that of iteration-level batching (Orca, Yu et al. 2022, OSDI), for a padded cache.
"""

import inspect
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from realignment.likelihood.backbone import causal_model
from realignment.model.key_values import count_layers, has_full_attention_alone, new_cache, take_rows

FINISHED_SHARE = 0.25
"""Share of a batch's places without work at which rows are moved: moving copies the whole cache."""


@dataclass(eq=False)
class Row:
    """A prompt and the answer to it so far.

    Attributes:
        prompt: Token ids, one at least.
        generator: Of the draws; None: greedy.
        tokens: Token ids of the answer, the end token included.
        entropy: Sum over `tokens` of the entropy of the distribution that each was chosen from, in nats.
        ended: Whether the answer has its end token.
        finished: Whether the answer ended or was cut.
    """

    prompt: Sequence[int]
    generator: torch.Generator | None = None
    tokens: list[int] = field(default_factory=list)
    entropy: float = 0.0
    ended: bool = False
    finished: bool = False


Choose = Callable[[Tensor, Sequence[Row]], Tensor]
"""Logits of the next token, shape (rows, V), and the rows → token ids, shape (rows,)."""


def decode(
    model: Any,
    rows: Sequence[Row],
    choose: Choose,
    *,
    end_tokens: Sequence[int],
    pad_token: int,
    max_new_tokens: int,
    batch_size: int,
    report: Callable[[int], object] = lambda _: None,
) -> None:
    """Write the answer of every row into it.

    Args:
        model: A model with keys and values alone (`key_values.has_key_values_alone`).
        rows: Prompts; those of similar length should be neighbours.
        choose: Chooses the next tokens.
        end_tokens: Tokens that end an answer.
        pad_token: Any token id: what it stands for is masked.
        max_new_tokens: Where an answer is cut at the latest.
        batch_size: Rows in work at a time.
        report: Called with the number of rows that finished.
    """
    waiting = deque(rows)
    reader = _Reader(model, rows, pad_token)
    batch: _Batch | None = None
    while batch or waiting:
        if batch is None:
            batch = reader.read(_take(waiting, batch_size))
        tokens = choose(batch.logits, batch.rows)
        report(add_tokens(batch.rows, batch.logits, tokens, set(end_tokens), max_new_tokens))
        active = [place for place, row in enumerate(batch.rows) if not row.finished]
        if not active:
            batch = None
            continue
        batch.advance(model, tokens)
        # Without waiting prompts the batch only shrinks, and its own size counts.
        size = batch_size if waiting else len(batch.rows)
        if len(active) <= (1 - FINISHED_SHARE) * size:
            more = _take(waiting, batch_size - len(active))
            parts = [(batch, active)]
            if more:
                parts.append((reader.read(more), list(range(len(more)))))
            batch = _join(parts)


def _take(waiting: deque[Row], count: int) -> list[Row]:
    return [waiting.popleft() for _ in range(min(count, len(waiting)))]


@dataclass
class _Batch:
    """Rows in work.

    `attended` says which columns of the cache hold a token of the row, shape (rows, columns); `position` is
    that of the next token, shape (rows,); `logits` are those of the next token, shape (rows, V).
    """

    rows: list[Row]
    cache: Cache
    attended: Tensor
    position: Tensor
    logits: Tensor

    def advance(self, model: Any, tokens: Tensor) -> None:
        """Read one more token of every row, shape (rows,)."""
        self.attended = torch.cat([self.attended, torch.ones_like(self.attended[:, :1])], dim=1)
        self.logits = _forward(model, self.cache, tokens[:, None], self.attended, self.position[:, None])
        self.position = self.position + 1


def add_tokens(
    rows: Sequence[Row], logits: Tensor, tokens: Tensor, end_tokens: set[int], max_new_tokens: int
) -> int:
    """Add a token and its entropy to every unfinished row.

    Args:
        rows: The rows; they are changed.
        logits: What the tokens were chosen from, shape (rows, V).
        tokens: One per row, shape (rows,).
        end_tokens: Tokens that end an answer.
        max_new_tokens: Where an answer is cut at the latest.

    Returns:
        How many rows finished by it.
    """
    entropies = torch.special.entr(logits.softmax(dim=-1)).sum(dim=-1).tolist()
    n_finished = 0
    for row, token, entropy in zip(rows, tokens.tolist(), entropies, strict=True):
        if row.finished:
            continue
        row.tokens.append(token)
        row.entropy += entropy
        row.ended = token in end_tokens
        row.finished = row.ended or len(row.tokens) == max_new_tokens
        n_finished += row.finished
    return n_finished


def _join(parts: Sequence[tuple[_Batch, list[int]]]) -> _Batch:
    """Make one batch of the given places of each part, without the columns that none of them uses."""
    kept = [
        (part, torch.tensor(places, device=part.attended.device), part.attended[places])
        for part, places in parts
    ]
    widths = [_used_width(attended) for _, _, attended in kept]
    width = max(widths)
    attended = [
        torch.nn.functional.pad(one[:, -used:], (width - used, 0))
        for (_, _, one), used in zip(kept, widths, strict=True)
    ]
    return _Batch(
        rows=[part.rows[place] for part, places in parts for place in places],
        cache=take_rows([(part.cache, places) for part, places, _ in kept], width),
        attended=torch.cat(attended),
        position=torch.cat([part.position[places] for part, places, _ in kept]),
        logits=torch.cat([part.logits[places] for part, places, _ in kept]),
    )


def _used_width(attended: Tensor) -> int:
    """Columns from the first that any row uses to the last."""
    return attended.shape[1] - int(attended.any(dim=0).int().argmax())


class _Reader:
    """Reads prompts into a cache, and the tokens that all of them begin with only once."""

    def __init__(self, model: Any, rows: Sequence[Row], pad_token: int) -> None:
        self._model = model
        self._pad_token = pad_token
        self._prefix: list[int] = []
        self._prefix_cache: Cache | None = None
        # Between prefix and rest the cache has padding, which a window or relative columns would count.
        if len(rows) > 1 and has_full_attention_alone(model) and "position_ids" in _inputs(model):
            self._prefix = _common_prefix([row.prompt for row in rows])
        if self._prefix:
            tokens = torch.tensor([self._prefix], device=model.device)
            self._prefix_cache = new_cache(count_layers(model))
            positions = torch.arange(len(self._prefix), device=model.device)[None]
            _forward(model, self._prefix_cache, tokens, torch.ones_like(tokens), positions)

    def read(self, rows: list[Row]) -> _Batch:
        """Read the rows' prompts together, padded on the left."""
        rests = [list(row.prompt[len(self._prefix) :]) for row in rows]
        width = max(map(len, rests))
        device = self._model.device
        tokens = torch.tensor([[self._pad_token] * (width - len(r)) + r for r in rests], device=device)
        is_token = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rests], device=device)
        # The first token of the rest follows the last of the prefix.
        positions = (is_token.cumsum(dim=1) - 1).clamp(min=0) + len(self._prefix)
        attended = torch.nn.functional.pad(is_token, (len(self._prefix), 0), value=1)
        if self._prefix_cache is None:
            cache = new_cache(count_layers(self._model))
        else:
            copies = torch.zeros(len(rows), dtype=torch.long, device=device)
            cache = take_rows([(self._prefix_cache, copies)], len(self._prefix))
        logits = _forward(self._model, cache, tokens, attended, positions)
        return _Batch(rows, cache, attended, positions[:, -1] + 1, logits)


def _common_prefix(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Return the tokens that all prompts begin with, less one where they are a whole prompt."""
    shortest = min(map(len, prompts))
    columns = zip(*(prompt[: shortest - 1] for prompt in prompts), strict=True)
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]


def _forward(model: Any, cache: Cache, tokens: Tensor, attended: Tensor, positions: Tensor) -> Tensor:
    """Append tokens to the cache; return the logits of the token after the last, shape (rows, V)."""
    options: dict[str, Any] = {}
    accepted = _inputs(model)
    if "position_ids" in accepted:
        options["position_ids"] = positions
    if "logits_to_keep" in accepted:
        options["logits_to_keep"] = 1
    output = model(
        input_ids=tokens, attention_mask=attended, past_key_values=cache, use_cache=True, **options
    )
    # Entropies and draws need more digits than half precision has.
    logits: Tensor = output.logits[:, -1]
    return logits if logits.dtype == torch.float64 else logits.float()


def _inputs(model: Any) -> set[str]:
    return set(inspect.signature(causal_model(model).forward).parameters)
