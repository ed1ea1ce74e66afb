"""Attention over rows that share prompts: each response sees its prompt and itself, as if it stood alone.

All other layers of a decoder treat tokens one by one, so they run over every token once. Attention alone is
done per sequence ``prompt + response``: queries, keys and values are gathered into plain causal sequences and
the outputs are gathered back. No mask is built, so any fused causal kernel serves, and a sliding window or
soft-capping means what it means in the model itself. The scores of a prompt are computed once a response;
that is the only repetition.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from realignment.likelihood.packing import Rows

SHARED_PROMPTS = "realignment_shared_prompts"
"""Name of this attention among transformers' implementations."""


def shared_prompt_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    prompt_sharing: Rows | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention of a decoder's layer, in the form that transformers calls.

    Args:
        module: The layer's attention.
        query: Shape (1, heads, L, head size).
        key: Shape (1, key heads, L, head size).
        value: As `key`.
        attention_mask: Used without `prompt_sharing` alone.
        prompt_sharing: The rows; None: plain attention (generation, other callers).
        sliding_window: Tokens that a token sees, itself included; None: all before it.
        softcap: c of c · tanh(score / c); None: none.
        options: Scaling, dropout and what a kernel knows besides.

    Returns:
        Shape (1, L, heads, head size), and no attention weights.
    """
    if prompt_sharing is None:
        if softcap is None:
            return sdpa_attention_forward(module, query, key, value, attention_mask, **options)  # type: ignore[no-any-return]
        if attention_mask is None and query.shape[2] > 1:
            # What a fused kernel is told by `is_causal` (`sdpa_mask` then leaves the mask out) is said here.
            attention_mask = _band(query.shape[2], key.shape[2], None, query)
        return _attend(module, query, key, value, attention_mask, softcap, options), None
    outputs = []
    for sequences in prompt_sharing.sequences:
        query_apart, key_apart, value_apart = (take_apart(x, sequences) for x in (query, key, value))
        width = sequences.shape[1]
        windowed = sliding_window is not None and width > sliding_window
        if softcap is None and not (query.device.type == "cpu" and _fused_is_slow(query_apart)):
            band = _band(width, width, sliding_window, query) if windowed else None
            output, _ = sdpa_attention_forward(module, query_apart, key_apart, value_apart, band, **options)
        else:
            band = _band(width, width, sliding_window, query)
            output = _attend(module, query_apart, key_apart, value_apart, band, softcap, options)
        outputs.append(output.flatten(0, 1))
    return torch.cat(outputs).index_select(0, prompt_sharing.home)[None], None


@contextmanager
def windows_handed_over() -> Iterator[set[int | None]]:
    """Collects the sliding windows that layers hand to attention meanwhile.

    Some families put their window into the mask alone, which this attention never reads.
    """
    found: set[int | None] = set()

    def listening(*states: Any, **options: Any) -> tuple[Tensor, None]:
        found.add(options.get("sliding_window"))
        return shared_prompt_attention(*states, **options)

    AttentionInterface.register(SHARED_PROMPTS, listening)
    try:
        yield found
    finally:
        AttentionInterface.register(SHARED_PROMPTS, shared_prompt_attention)


def _fused_is_slow(query: Tensor) -> bool:
    """Torch's fused kernel for CPUs takes three times as long for a backward in half precision."""
    half = torch.finfo(query.dtype).eps > torch.finfo(torch.float32).eps
    return half and query.shape[2] <= 256


def take_apart(states: Tensor, sequences: Tensor) -> Tensor:
    """Every sequence's own tokens: (1, H, L, D) → (R, H, K, D)."""
    tokens = states[0].transpose(0, 1).flatten(1)
    gathered = tokens.index_select(0, sequences.flatten())
    return gathered.view(*sequences.shape, states.shape[1], states.shape[3]).transpose(1, 2)


def visible(queries: int, keys: int, window: int | None, device: torch.device) -> Tensor:
    """Whether a query (row) sees a key (column), those of its window if there is one, shape (Q, K)."""
    seen = torch.ones(queries, keys, dtype=torch.bool, device=device).tril()
    return seen if window is None else seen.triu(1 - window)


def _band(queries: int, keys: int, window: int | None, like: Tensor) -> Tensor:
    """Zero where a query (row) sees a key (column), minus infinity elsewhere, shape (1, 1, Q, K)."""
    seen = visible(queries, keys, window, like.device)
    return like.new_zeros(queries, keys).masked_fill_(~seen, float("-inf"))[None, None]


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    softcap: float | None,
    options: dict[str, Any],
) -> Tensor:
    """Attention in the open: products and a softmax, shape (R, K, H, D)."""
    groups = query.shape[1] // key.shape[1]
    scores = query @ repeat_kv(key, groups).transpose(2, 3) * options["scaling"]
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    exact = torch.promote_types(query.dtype, torch.float32)
    weights = nn.functional.dropout(
        torch.softmax(scores, dim=-1, dtype=exact).to(query.dtype),
        p=options.get("dropout", 0.0),
        training=module.training,
    )
    output: Tensor = (weights @ repeat_kv(value, groups)).transpose(1, 2).contiguous()
    return output


AttentionInterface.register(SHARED_PROMPTS, shared_prompt_attention)
AttentionMaskInterface.register(SHARED_PROMPTS, sdpa_mask)
