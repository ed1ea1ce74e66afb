"""Attention of requests that begin alike: the keys and values of what they share are there once, not copied.

A policy comes first, prompts follow it, and responses follow these: a tree. The policy's keys and values are
there already. The rest lies in one row without padding, each prompt once; all layers but attention treat
tokens one by one. Attention is done in two parts, and the parts are put together by the weight of each
(the logarithms of their normalisers, as in FlashAttention, arXiv:2205.14135): over the policy, one product
for all tokens of the row; over what comes after it, per request as in `realignment.likelihood.attention`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.masking_utils import sdpa_mask

from realignment.likelihood.attention import take_apart, visible

BRANCHING = "realignment_branching"
"""Name of this attention among transformers' implementations."""

_SCORES_CPU, _SCORES_GPU = 2**18, 2**26
"""Scores at a time where no fused kernel serves: on a CPU they stay in its cache."""


@dataclass(frozen=True, slots=True)
class Branches:
    """R requests of L tokens after a common prefix of P.

    Attributes:
        prefix: Keys and values of the P tokens by layer; of the last ones alone where a layer has a window.
        prefix_length: P; may be 0.
        position_ids: Shape (1, L), P and up.
        sequences: Places of each request's tokens in the row, those of similar length together, padded at
            their ends, shape (R_g, K_g) each; see `likelihood.packing.Rows`.
        home: Where in `sequences`, group after group and row by row, each place is looked up again, shape
            (L,).
        last: Place of each request's last token, shape (R,).
    """

    prefix: DynamicCache
    prefix_length: int
    position_ids: Tensor
    sequences: tuple[Tensor, ...]
    home: Tensor
    last: Tensor


Part = tuple[Tensor, Tensor]
"""Attention over a part of the keys, (B, H, Q, D), and the logarithm of its normaliser, (B, H, Q)."""


def branching_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    branches: Branches,
    scaling: float | None = None,
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
        attention_mask: Not read.
        branches: What the tokens see.
        scaling: Of the scores; None: 1/√(head size).
        sliding_window: Tokens that a token sees, itself included; None: all before it.
        softcap: c of c · tanh(score / c); None: none.
        options: Dropout and what else layers pass; none of it plays a part in a model that only reads.

    Returns:
        Shape (1, L, heads, head size), and no attention weights.
    """
    scores = {"scaling": query.shape[-1] ** -0.5 if scaling is None else scaling, "softcap": softcap}
    output, weight = _attend_to_own(query, key, value, branches, sliding_window, scores)
    if branches.prefix_length:
        is_final = module.layer_idx == len(branches.prefix.layers) - 1
        # Of the final layer nothing but the last tokens is read.
        at = branches.last if is_final else slice(None)
        shared, shared_weight = _attend_to_prefix(
            module, query[:, :, at], branches, at, sliding_window, scores
        )
        share = torch.sigmoid(shared_weight - weight[:, :, at]).to(output.dtype)
        output[:, :, at] = torch.lerp(output[:, :, at], shared, share[..., None])
    return output.transpose(1, 2), None


def _attend_to_own(
    query: Tensor, key: Tensor, value: Tensor, branches: Branches, window: int | None, scores: dict[str, Any]
) -> Part:
    """Over the tokens after the prefix: one plain causal sequence a request."""
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    parts = []
    for sequences in branches.sequences:
        width, seen = sequences.shape[1], None
        if window is not None and width > window:
            seen = visible(width, width, window, query.device)
        apart = (take_apart(states, sequences) for states in (query, key, value))
        parts.append(_attend(*apart, causal=True, seen=seen, **scores))
    output, weight = (
        torch.cat([values.transpose(1, 2).flatten(0, 1) for values in column]).index_select(0, branches.home)
        for column in zip(*parts, strict=True)
    )
    return output.transpose(0, 1)[None], weight.t()[None]


def _attend_to_prefix(
    module: nn.Module,
    query: Tensor,
    branches: Branches,
    at: Tensor | slice,
    window: int | None,
    scores: dict[str, Any],
) -> Part:
    """Over the prefix, from some places: the heads that share keys are one long sequence of queries."""
    kept = branches.prefix.layers[module.layer_idx]
    key, value = kept.keys, kept.values
    first, seen = branches.prefix_length - key.shape[2], None
    if window is not None and int(branches.position_ids.max()) - first >= window:
        positions = torch.arange(first, branches.prefix_length, device=query.device)
        seen = positions > branches.position_ids[0, at, None] - window
        seen = seen.repeat(query.shape[1] // key.shape[1], 1)
    folded = query.reshape(1, key.shape[1], -1, query.shape[3])
    output, weight = _attend(folded, key, value, causal=False, seen=seen, **scores)
    return output.reshape(query.shape), weight.reshape(query.shape[:3])


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    causal: bool,
    seen: Tensor | None,
    scaling: float,
    softcap: float | None,
) -> Part:
    """Queries over keys; `seen` (Q, K) says which they see, and goes before `causal`."""
    if seen is None and softcap is None and query.device.type == "cpu":
        # The kernel behind `scaled_dot_product_attention`, which keeps the normaliser to itself.
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        output, weight = fused(query, key, value, is_causal=causal, scale=scaling)
        return output, weight
    if seen is None and causal:
        seen = visible(query.shape[2], key.shape[2], None, query.device)
    limit = _SCORES_CPU if query.device.type == "cpu" else _SCORES_GPU
    rows = max(1, limit // (query.shape[0] * query.shape[1] * key.shape[2]))
    blocks = query.split(rows, dim=2)
    masks = [None] * len(blocks) if seen is None else seen.split(rows)
    parts = [
        _attend_openly(block, key, value, mask, scaling, softcap)
        for block, mask in zip(blocks, masks, strict=True)
    ]
    return torch.cat([output for output, _ in parts], 2), torch.cat([weight for _, weight in parts], 2)


def _attend_openly(
    query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None, scaling: float, softcap: float | None
) -> Part:
    """Products and a softmax; a query that sees nothing gets zero, of weight exp(−∞)."""
    exact = torch.promote_types(query.dtype, torch.float32)
    scores = (query @ key.transpose(2, 3)).to(exact) * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if seen is not None:
        scores = scores.masked_fill(~seen, float("-inf"))
    weight = scores.logsumexp(-1)
    shares = scores.sub_(weight.clamp_min(torch.finfo(exact).min)[..., None]).exp_()
    return shares.to(query.dtype) @ value, weight


AttentionInterface.register(BRANCHING, branching_attention)
AttentionMaskInterface.register(BRANCHING, sdpa_mask)
