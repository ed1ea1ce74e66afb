"""Forward passes over requests that share a prefix: in one row where the attention can be taken apart."""

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from realignment.likelihood.backbone import backbone, causal_model
from realignment.likelihood.placement import pack_shared
from realignment.likelihood.tokenization import TokenizedPair
from realignment.oracles.branching import BRANCHING, Branches
from realignment.records import OracleError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)


def read_prefix(model: "PreTrainedModel", tokens: list[int]) -> DynamicCache:
    """Compute the keys and values of the tokens that all requests share.

    Args:
        model: Any causal language model.
        tokens: Their ids; there may be none.

    Returns:
        A cache of P tokens: keys and values of shape (1, key heads, P, head size) in each layer.

    Raises:
        OracleError: The model is recurrent.
    """
    cache = DynamicCache(config=causal_model(model).config)
    if not all(isinstance(layer, DynamicLayer) for layer in cache.layers):
        raise OracleError(
            f"{type(causal_model(model)).__name__} is recurrent, in part at least: it keeps a state "
            "and not keys and values, so requests cannot share the policy. Serve it, and judge by "
            "`judging.oracle: chat`."
        )
    if tokens:
        ids = torch.tensor([tokens], device=model.device)
        backbone(model)(input_ids=ids, past_key_values=cache, use_cache=True)
    return cache


def read_in_one_row(
    model: "PreTrainedModel", branches: Sequence[TokenizedPair], prefix: DynamicCache
) -> Tensor:
    """Read requests in one row, without padding and without copies of the prefix; see `branching`.

    Args:
        model: One for which `can_branch` holds.
        branches: Tokens that requests share and what follows in each; R requests in all.
        prefix: Keys and values of the tokens before them, from `read_prefix`.

    Returns:
        The hidden state of each request's last token, shape (R, d).
    """
    device = model.device
    length = prefix.get_seq_length()
    # One row of L tokens, [prompt | response | response …] tree after tree: ids and positions (1, L).
    row = pack_shared(branches)
    layout = Branches(
        prefix,
        length,
        # Each response continues at the position where its prompt ends, and all come after the prefix.
        position_ids=row["position_ids"].to(device) + length,
        sequences=tuple(group.to(device) for group in row["sequences"]),
        inverse=row["inverse"].to(device),
        last=_find_last_places(branches).to(device),
    )
    with _use_attention(model, BRANCHING), _restrict_last_mlp(model, layout.last, length=len(layout.inverse)):
        states = backbone(model)(
            input_ids=row["input_ids"].to(device),
            position_ids=layout.position_ids,
            # transformers takes a mask of four dimensions for a finished one and builds none of its own;
            # `branching_attention` never reads it, so its size does not matter.
            attention_mask=torch.empty(1, 1, 1, 1, device=device),
            branches=layout,
            # The prefix is read through `branches`: the cache must not grow by these tokens.
            use_cache=False,
        ).last_hidden_state  # (1, L, d), of which only the last places hold true values
    return states[0, layout.last]  # type: ignore[no-any-return]


def _find_last_places(branches: Sequence[TokenizedPair]) -> Tensor:
    """Return the place of each response's last token in the row, shape (R,)."""
    lengths: list[int] = []
    is_response: list[bool] = []
    for branch in branches:
        lengths.append(len(branch.prompt))
        is_response.append(False)
        for response in branch.responses:
            lengths.append(len(response))
            is_response.append(True)
    # A segment ends one place before the next begins; those of prompts are no request's end.
    ends = torch.tensor(lengths).cumsum(0) - 1
    return ends[torch.tensor(is_response)]


def read_padded(model: "PreTrainedModel", branches: Sequence[TokenizedPair], prefix: DynamicCache) -> Tensor:
    """Read each request in a padded row with its own copy of the prefix: for any attention, but slower.

    Args:
        model: Any causal language model.
        branches: Tokens that requests share and what follows in each; R requests in all.
        prefix: Keys and values of the tokens before them, from `read_prefix`.

    Returns:
        The hidden state of each request's last token, shape (R, d).
    """
    rests = [branch.prompt + response for branch in branches for response in branch.responses]
    longest = max(map(len, rests))
    ids = torch.zeros(len(rests), longest, dtype=torch.long)  # (R, K)
    for row, rest in enumerate(rests):
        ids[row, : len(rest)] = torch.tensor(rest)
    # The forward pass appends to the cache in place, and the next batch needs the prefix as it was.
    keys_and_values = copy.deepcopy(prefix)
    shared = prefix.get_seq_length()
    if shared:
        keys_and_values.batch_repeat_interleave(len(rests))  # (1, heads, P, D) → (R, heads, P, D)
    # No mask: rows are padded at their ends, and causal attention never looks ahead to the padding.
    states = backbone(model)(
        input_ids=ids.to(model.device),
        position_ids=torch.arange(shared, shared + longest, device=model.device).expand(len(rests), -1),
        past_key_values=keys_and_values,
        use_cache=True,
    ).last_hidden_state  # (R, K, d)
    last = torch.tensor([len(rest) - 1 for rest in rests])
    return states[torch.arange(len(rests)), last]  # type: ignore[no-any-return]


@torch.inference_mode()
def can_branch(model: "PreTrainedModel") -> bool:
    """Return whether states read in one row equal those of full forward passes; measured, not looked up.

    Args:
        model: Any causal language model with a key-value cache.

    Returns:
        False, with a warning in the log, where they differ or where reading in one row fails.

    Raises:
        OracleError: The model is recurrent.
    """
    # Two requests with all that requests can share: a prefix of 32 tokens, a prompt of 16, a response each.
    tokens = (torch.arange(1, 97) * 7 % model.get_input_embeddings().num_embeddings).tolist()
    start, prompt, responses = tokens[:32], tokens[32:48], (tokens[48:72], tokens[72:])
    full = [torch.tensor([start + prompt + response], device=model.device) for response in responses]
    expected = torch.stack([backbone(model)(input_ids=ids).last_hidden_state[0, -1] for ids in full])
    try:
        states = read_in_one_row(model, [TokenizedPair(prompt, responses)], read_prefix(model, start))
        error = float((states - expected).norm() / expected.norm())
        reason = f"relative error {error:.1e}"
    except OracleError:
        raise
    except Exception as problem:  # whatever a foreign forward raises, the answer is: it cannot
        error = float("inf")
        reason = f"{type(problem).__name__}: {problem}"
    # Rounding differs with the order of sums: some units in the last place of the model's precision.
    if error <= max(1e-3, 8 * torch.finfo(model.dtype).eps):
        return True
    logger.warning(
        "%s cannot read requests in one row (%s): each is read in a padded row of its own, with a copy of "
        "the policy's keys and values. Verdicts are the same; it takes longer.",
        type(model).__name__,
        reason,
    )
    return False


@contextmanager
def _use_attention(model: "PreTrainedModel", attention: str) -> Iterator[None]:
    """Switch the model to another attention meanwhile."""
    causal = causal_model(model)
    previous = causal.config._attn_implementation
    causal.set_attn_implementation(attention)
    try:
        yield
    finally:
        causal.set_attn_implementation(previous)


@contextmanager
def _restrict_last_mlp(model: "PreTrainedModel", places: Tensor, *, length: int) -> Iterator[None]:
    """Compute the last layer's MLP at these places alone, meanwhile; it gives zero for all others.

    After the last layer only the places of `places` (R of L) are read, so the others need no MLP.
    """
    mlps = [module for name, module in backbone(model).named_modules() if name.endswith(".mlp")]

    def select(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (inputs[0][:, places],)  # (1, L, d) → (1, R, d)

    def put_back(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        # (1, R, d) → (1, L, d), as the residual connection around the MLP expects.
        return output.new_zeros(1, length, output.shape[2]).index_copy_(1, places, output)

    hooks = []
    for mlp in mlps[-1:]:  # none where a family names it otherwise: then all places are computed
        hooks.append(mlp.register_forward_pre_hook(select))
        hooks.append(mlp.register_forward_hook(put_back))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
