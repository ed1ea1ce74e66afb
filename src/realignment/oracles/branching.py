"""Attention of requests that begin alike: keys and values of shared tokens are stored once, not copied.

Requests form a tree: the policy comes first, prompts follow the policy, and responses follow the prompts. The
policy's keys and values are in a cache already. The other tokens lie in one row without padding, each prompt
once; all layers but attention treat tokens one by one, so they need no change. Attention is computed in two
parts: over the policy, as one product for all tokens of the row; over what comes after it, per request, as in
`realignment.likelihood.attention`. The two parts are then combined, each weighted by its share of the softmax
(from the logarithms of their normalisers, as in FlashAttention, arXiv:2205.14135).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.masking_utils import sdpa_mask

from realignment.likelihood.attention import causal_mask, gather_sequences

BRANCHING = "realignment_branching"
"""Name of this attention among transformers' implementations."""

_SCORES_CPU = 2**18
"""Scores computed at a time on a CPU where no fused kernel serves: so many stay in its cache."""
_SCORES_GPU = 2**26
"""The same on a GPU."""


@dataclass(frozen=True, slots=True)
class Branches:
    """R requests of L tokens after a common prefix of P.

    Attributes:
        prefix: Keys and values of the P tokens by layer; of the last ones alone where a layer has a window.
        prefix_length: P; may be 0.
        position_ids: Shape (1, L), P and up.
        sequences: Places of each request's tokens in the row, those of similar length together, padded at
            their ends, shape (R_g, K_g) each; see `likelihood.packing.Rows`.
        inverse: Where in `sequences`, group after group and row by row, each place is looked up again, shape
            (L,).
        last: Place of each request's last token, shape (R,).
    """

    prefix: DynamicCache
    prefix_length: int
    position_ids: Tensor
    sequences: tuple[Tensor, ...]
    inverse: Tensor
    last: Tensor


PartialAttention = tuple[Tensor, Tensor]
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
    """Compute the attention of one decoder layer, with the signature that transformers calls.

    Args:
        module: The layer's attention.
        query: Shape (1, heads, L, head size).
        key: Shape (1, key heads, L, head size).
        value: As `key`.
        attention_mask: Not read.
        branches: The requests that the L tokens belong to, and the prefix that all of them see.
        scaling: Factor of the scores; None: 1/√(head size).
        sliding_window: Tokens that a token sees, itself included; None: all before it.
        softcap: c of c · tanh(score / c); None: none.
        **options: Dropout and what else layers pass; not read, since the model is not trained here.

    Returns:
        Shape (1, L, heads, head size), and no attention weights.
    """
    scores = {"scaling": query.shape[-1] ** -0.5 if scaling is None else scaling, "softcap": softcap}
    # Part 1, per request: output (1, H, L, D), and the logarithm of the normaliser (1, H, L).
    output, log_normaliser = _attend_to_own(query, key, value, branches, sliding_window, scores)
    if branches.prefix_length:
        is_final = module.layer_idx == len(branches.prefix.layers) - 1
        # Of the final layer only the requests' last tokens are read: (R,) of the L places suffice.
        places = branches.last if is_final else slice(None)
        # Part 2, over the prefix: output (1, H, L or R, D).
        prefix_output, prefix_log_normaliser = _attend_to_prefix(
            module, query[:, :, places], branches, places, sliding_window, scores
        )
        # Softmax over all keys is the mean of both parts, weighted by their normalisers Z. The prefix has
        # the weight Z_prefix / (Z_prefix + Z_own) = σ(log Z_prefix − log Z_own).
        weight = torch.sigmoid(prefix_log_normaliser - log_normaliser[:, :, places]).to(output.dtype)
        output[:, :, places] = torch.lerp(output[:, :, places], prefix_output, weight[..., None])
    return output.transpose(1, 2), None


def _attend_to_own(
    query: Tensor, key: Tensor, value: Tensor, branches: Branches, window: int | None, scores: dict[str, Any]
) -> PartialAttention:
    """Attend over the tokens after the prefix: one plain causal sequence per request."""
    # The kernel expects as many heads of keys as of queries: (1, key heads, L, D) → (1, H, L, D).
    groups = query.shape[1] // key.shape[1]
    key = repeat_kv(key, groups)
    value = repeat_kv(value, groups)
    outputs = []
    log_normalisers = []
    for sequences in branches.sequences:
        # The tokens of R_g requests of similar length, padded at their ends: (1, H, L, D) → (R_g, H, K_g, D).
        own_states = (gather_sequences(states, sequences) for states in (query, key, value))
        width = sequences.shape[1]
        # Without a window that cuts, `causal` says it all, and a fused kernel needs no mask.
        has_mask = window is not None and width > window
        mask = causal_mask(width, width, window, query.device) if has_mask else None
        output, log_normaliser = _attend(*own_states, causal=True, mask=mask, **scores)
        # Places first, as `inverse` counts them: (R_g·K_g, H, D) and (R_g·K_g, H).
        outputs.append(output.transpose(1, 2).flatten(0, 1))
        log_normalisers.append(log_normaliser.transpose(1, 2).flatten(0, 1))
    # Back to the row, which drops the padding and keeps one copy of each prompt token: (L, H, D) and (L, H).
    own_output = torch.cat(outputs).index_select(0, branches.inverse)
    own_log_normaliser = torch.cat(log_normalisers).index_select(0, branches.inverse)
    return own_output.transpose(0, 1)[None], own_log_normaliser.t()[None]


def _attend_to_prefix(
    module: nn.Module,
    query: Tensor,
    branches: Branches,
    places: Tensor | slice,
    window: int | None,
    scores: dict[str, Any],
) -> PartialAttention:
    """Attend over the prefix from the queries at `places`, Q of them."""
    layer = branches.prefix.layers[module.layer_idx]
    key, value = layer.keys, layer.values
    groups = query.shape[1] // key.shape[1]
    # A layer with a window caches the last tokens of the prefix alone.
    first = branches.prefix_length - key.shape[2]
    mask = None
    if window is not None and int(branches.position_ids.max()) - first >= window:
        # Some query is too far from the first cached token to see it: (Q, cached), repeated to (groups·Q, …).
        key_positions = torch.arange(first, branches.prefix_length, device=query.device)
        mask = key_positions > branches.position_ids[0, places, None] - window
        mask = mask.repeat(groups, 1)
    # The heads that share keys are one long sequence of queries, so that no key is copied per head:
    # (1, H, Q, D) → (1, key heads, groups·Q, D).
    folded = query.reshape(1, key.shape[1], -1, query.shape[3])
    output, log_normaliser = _attend(folded, key, value, causal=False, mask=mask, **scores)
    return output.reshape(query.shape), log_normaliser.reshape(query.shape[:3])


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    causal: bool,
    mask: Tensor | None,
    scaling: float,
    softcap: float | None,
) -> PartialAttention:
    """Attend, by a fused kernel if possible; `mask` (Q, K), true where a key is seen, overrides `causal`."""
    if mask is None and softcap is None and query.device.type == "cpu":
        # The kernel behind `scaled_dot_product_attention`, which does not return the normaliser.
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        output, log_normaliser = fused(query, key, value, is_causal=causal, scale=scaling)
        return output, log_normaliser
    if mask is None and causal:
        mask = causal_mask(query.shape[2], key.shape[2], None, query.device)
    # Blocks of queries bound the memory of the scores, (B, H, rows, K) each.
    limit = _SCORES_CPU if query.device.type == "cpu" else _SCORES_GPU
    rows = max(1, limit // (query.shape[0] * query.shape[1] * key.shape[2]))
    blocks = query.split(rows, dim=2)
    masks = [None] * len(blocks) if mask is None else mask.split(rows)
    outputs = []
    log_normalisers = []
    for block, block_mask in zip(blocks, masks, strict=True):
        output, log_normaliser = _attend_unfused(block, key, value, block_mask, scaling, softcap)
        outputs.append(output)
        log_normalisers.append(log_normaliser)
    return torch.cat(outputs, 2), torch.cat(log_normalisers, 2)


def _attend_unfused(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, softcap: float | None
) -> PartialAttention:
    """Attend by products and a softmax; a query that sees no key gets zero, with the normaliser exp(−∞)."""
    exact = torch.promote_types(query.dtype, torch.float32)
    scores = (query @ key.transpose(2, 3)).to(exact) * scaling  # (B, H, Q, K)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    log_normaliser = scores.logsumexp(-1)  # (B, H, Q)
    # In place, for the scores are the largest tensor here. Where no key is seen the normaliser is −∞, and
    # −∞ − (−∞) would be NaN: the clamp makes it −∞ − (a finite number), and exp of that 0.
    finite = log_normaliser.clamp_min(torch.finfo(exact).min)
    shares = scores.sub_(finite[..., None]).exp_()
    return shares.to(query.dtype) @ value, log_normaliser


AttentionInterface.register(BRANCHING, branching_attention)
AttentionMaskInterface.register(BRANCHING, sdpa_mask)
