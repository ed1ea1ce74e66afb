"""Attention over rows that share prompts: each response sees its prompt and itself, as if it stood alone.

All other layers of a decoder treat tokens one by one, so they run over every token once. Attention alone is
done per sequence ``prompt + response``: queries, keys and values are gathered into plain causal sequences,
and the outputs are gathered back. No mask is built for them, so any fused causal kernel serves, and a sliding
window or soft-capping means what it means in the model itself. The scores of a prompt are computed once a
response; that is the only repetition.
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

SLOW_FUSED_WIDTH = 256
"""Tokens up to which plain products beat torch's fused CPU kernel in half precision."""


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
    """Compute the attention of a decoder's layer, in the form that transformers calls.

    Args:
        module: The layer's attention.
        query: Shape (1, heads, L, head size).
        key: Shape (1, key heads, L, head size).
        value: As `key`.
        attention_mask: Used without `prompt_sharing` alone.
        prompt_sharing: The rows; None: plain attention (generation, other callers).
        sliding_window: Tokens that a token sees, itself included; None: all before it.
        softcap: c of c · tanh(score / c); None: none.
        **options: Scaling, dropout and further options of a kernel.

    Returns:
        Shape (1, L, heads, head size), and no attention weights.
    """
    if prompt_sharing is None:
        return _plain_attention(module, query, key, value, attention_mask, softcap, options), None
    outputs = []
    for sequences in prompt_sharing.sequences:
        # (1, H, L, D) → (R_g, H, K_g, D): the prompt is copied once for each of its responses.
        group_query = gather_sequences(query, sequences)
        group_key = gather_sequences(key, sequences)
        group_value = gather_sequences(value, sequences)
        width = sequences.shape[1]
        if softcap is None and not _is_fused_slow(group_query):
            # Without a mask the kernel is causal by itself; only a window that cuts something off needs one.
            is_windowed = sliding_window is not None and width > sliding_window
            mask = _additive_mask(width, width, sliding_window, query) if is_windowed else None
            output, _ = sdpa_attention_forward(module, group_query, group_key, group_value, mask, **options)
        else:
            mask = _additive_mask(width, width, sliding_window, query)
            output = _unfused_attention(module, group_query, group_key, group_value, mask, softcap, options)
        # (R_g, K_g, H, D) → (R_g·K_g, H, D), so that groups of different width can be joined.
        outputs.append(output.flatten(0, 1))
    # A prompt's token has an output in each of its responses' sequences, all equal; `inverse` picks one.
    return torch.cat(outputs).index_select(0, prompt_sharing.inverse)[None], None


@contextmanager
def record_sliding_windows() -> Iterator[set[int | None]]:
    """Record the sliding windows that layers pass to attention while the context is open.

    Some families put their window into the mask alone, which this attention never reads.

    Yields:
        The windows in tokens so far; None where a layer passed none.
    """
    windows: set[int | None] = set()

    def recording_attention(*states: Any, **options: Any) -> tuple[Tensor, None]:
        windows.add(options.get("sliding_window"))
        return shared_prompt_attention(*states, **options)

    AttentionInterface.register(SHARED_PROMPTS, recording_attention)
    try:
        yield windows
    finally:
        AttentionInterface.register(SHARED_PROMPTS, shared_prompt_attention)


def gather_sequences(states: Tensor, sequences: Tensor) -> Tensor:
    """Gather every sequence's own tokens out of the row that holds them all.

    Args:
        states: Queries, keys or values of the row's tokens, shape (1, H, L, D).
        sequences: Places of each sequence's tokens in the row, shape (R, K).

    Returns:
        Shape (R, H, K, D).
    """
    tokens = states[0].transpose(0, 1).flatten(1)  # (L, H·D): one contiguous line a token
    gathered = tokens.index_select(0, sequences.flatten())  # (R·K, H·D)
    return gathered.view(*sequences.shape, states.shape[1], states.shape[3]).transpose(1, 2)


def causal_mask(queries: int, keys: int, window: int | None, device: torch.device) -> Tensor:
    """Return whether a query (row) sees a key (column), at most `window` keys back, shape (Q, K)."""
    mask = torch.ones(queries, keys, dtype=torch.bool, device=device).tril()
    return mask if window is None else mask.triu(1 - window)


def _additive_mask(queries: int, keys: int, window: int | None, like: Tensor) -> Tensor:
    """Return zero where a query (row) sees a key (column), minus infinity elsewhere, shape (1, 1, Q, K)."""
    mask = causal_mask(queries, keys, window, like.device)
    return like.new_zeros(queries, keys).masked_fill_(~mask, float("-inf"))[None, None]


def _is_fused_slow(query: Tensor) -> bool:
    """Torch's fused kernel for CPUs takes three times as long for a backward in half precision."""
    is_half = torch.finfo(query.dtype).eps > torch.finfo(torch.float32).eps
    return query.device.type == "cpu" and is_half and query.shape[2] <= SLOW_FUSED_WIDTH


def _plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    softcap: float | None,
    options: dict[str, Any],
) -> Tensor:
    """Attention of a caller that shares no prompts, over the mask that transformers built."""
    if softcap is None:
        output, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
        return output  # type: ignore[no-any-return]
    if mask is None and query.shape[2] > 1:
        # `sdpa_mask` leaves the mask out where a fused kernel's `is_causal` says the same; this one has none.
        mask = _additive_mask(query.shape[2], key.shape[2], None, query)
    return _unfused_attention(module, query, key, value, mask, softcap, options)


def _unfused_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    softcap: float | None,
    options: dict[str, Any],
) -> Tensor:
    """Attention as two products and a softmax between them, shape (R, K, H, D)."""
    # Grouped-query attention: each key head serves several query heads.
    groups = query.shape[1] // key.shape[1]
    scores = query @ repeat_kv(key, groups).transpose(2, 3) * options["scaling"]  # (R, H, Q, K)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    # The softmax in float32 or better, as the fused kernels have it.
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
