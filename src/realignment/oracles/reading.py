"""What a model knows at the end of each request: what requests share, policy and prompts, is read once."""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from realignment.likelihood.backbone import backbone, causal_model
from realignment.likelihood.packing import Layout, share
from realignment.likelihood.tokenization import TokenizedPair
from realignment.oracles.branching import BRANCHING, Branches
from realignment.records import OracleError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

Read = Callable[["PreTrainedModel", Sequence[TokenizedPair], DynamicCache], Tensor]
"""Requests that share the cached tokens → the hidden state of each one's last token, shape (R, d)."""


class Reader:
    """Reads requests in one row where the model's attention can be taken apart, else in padded rows.

    Attributes:
        tokens: How many it has read so far, each shared one once.
    """

    def __init__(self, model: "PreTrainedModel", *, budget: int) -> None:
        """Find out how this model can read.

        Args:
            model: Any causal language model with a key-value cache.
            budget: Tokens of a batch, besides those that all requests share (but one request at least).
        """
        self._model, self._budget = model, budget
        self._branches = can_branch(model)
        self._layout = Layout(pad_id=0, share_prompts=self._branches)
        self.tokens = 0

    def __call__(
        self, requests: Sequence[list[int]], prompts: Sequence[object]
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Indices of requests, and the hidden states of their last tokens, shape (B, d), batch by batch.

        Args:
            requests: Token ids, one at least each.
            prompts: What each request asks about; where neighbours have the same, they share it.
        """
        prefix = shared_prefix(requests)
        cache = read_prefix(self._model, prefix)
        self.tokens += len(prefix)
        rests = [request[len(prefix) :] for request in requests]
        runs = list(_runs(rests, prompts, self._budget))
        branches = [_branch([rests[index] for index in run]) for run in runs]
        read = read_in_one_row if self._branches else read_padded
        for batch in self._layout.batches(branches, budget=self._budget):
            self.tokens += sum(len(branches[number]) for number in batch)
            states = read(self._model, [branches[number] for number in batch], cache)
            yield [index for number in batch for index in runs[number]], states


def shared_prefix(requests: Sequence[list[int]]) -> list[int]:
    """The tokens that all requests begin with; each keeps one of its own at least."""
    if not requests:
        return []
    first, last, length = min(requests), max(requests), min(map(len, requests)) - 1  # in order of content
    differ = (i for i, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    return first[: min(next(differ, length), length)]


def _runs(rests: Sequence[list[int]], prompts: Sequence[object], budget: int) -> Iterator[list[int]]:
    """Indices of neighbours with the same prompt, as many as fit a batch."""
    for _, same in groupby(range(len(rests)), key=prompts.__getitem__):
        run: list[int] = []
        for index in same:
            if run and sum(len(rests[i]) for i in run) + len(rests[index]) > budget:
                yield run
                run = []
            run.append(index)
        yield run


def _branch(rests: Sequence[list[int]]) -> TokenizedPair:
    """What requests begin with, and how each goes on."""
    shared = shared_prefix(rests)
    return TokenizedPair(shared, tuple(rest[len(shared) :] for rest in rests))


def read_prefix(model: "PreTrainedModel", tokens: list[int]) -> DynamicCache:
    """Keys and values of the tokens that all requests share.

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
    """No padding and no copies; see `branching`."""
    row, length, device = share(branches), prefix.get_seq_length(), model.device
    laid = Branches(
        prefix,
        length,
        position_ids=row["position_ids"].to(device) + length,
        sequences=tuple(group.to(device) for group in row["sequences"]),
        home=row["home"].to(device),
        last=_last_places(branches).to(device),
    )
    with _attending(model, BRANCHING), _last_mlp_at(model, laid.last, of=len(laid.home)):
        states = backbone(model)(
            input_ids=row["input_ids"].to(device),
            position_ids=laid.position_ids,
            # A mask of four dimensions is taken for a finished one, so none is built; ours is never read.
            attention_mask=torch.empty(1, 1, 1, 1, device=device),
            branches=laid,
            use_cache=False,
        ).last_hidden_state
    return states[0, laid.last]  # type: ignore[no-any-return]


def _last_places(branches: Sequence[TokenizedPair]) -> Tensor:
    lengths, is_response = [], []
    for branch in branches:
        lengths += [len(branch.prompt), *map(len, branch.responses)]
        is_response += [False, *[True] * len(branch.responses)]
    return torch.tensor(lengths).cumsum(0)[torch.tensor(is_response)] - 1


def read_padded(model: "PreTrainedModel", branches: Sequence[TokenizedPair], prefix: DynamicCache) -> Tensor:
    """Rows padded at their end, which no real token sees: no mask. Each has a copy of the prefix."""
    rests = [branch.prompt + response for branch in branches for response in branch.responses]
    shared, longest = prefix.get_seq_length(), max(map(len, rests))
    ids = torch.zeros(len(rests), longest, dtype=torch.long)
    for row, rest in enumerate(rests):
        ids[row, : len(rest)] = torch.tensor(rest)
    keys_and_values = copy.deepcopy(prefix)
    if shared:
        keys_and_values.batch_repeat_interleave(len(rests))
    states = backbone(model)(
        input_ids=ids.to(model.device),
        position_ids=torch.arange(shared, shared + longest, device=model.device).expand(len(rests), -1),
        past_key_values=keys_and_values,
        use_cache=True,
    ).last_hidden_state
    return states[torch.arange(len(rests)), torch.tensor([len(rest) - 1 for rest in rests])]  # type: ignore[no-any-return]


@torch.inference_mode()
def can_branch(model: "PreTrainedModel") -> bool:
    """Whether states read in one row are those of full forward passes; measured, not looked up."""
    tokens = (torch.arange(1, 97) * 7 % model.get_input_embeddings().num_embeddings).tolist()
    start, prompt, responses = tokens[:32], tokens[32:48], (tokens[48:72], tokens[72:])
    full = [torch.tensor([start + prompt + response], device=model.device) for response in responses]
    expected = torch.stack([backbone(model)(input_ids=ids).last_hidden_state[0, -1] for ids in full])
    try:
        found = read_in_one_row(model, [TokenizedPair(prompt, responses)], read_prefix(model, start))
        error = float((found - expected).norm() / expected.norm())
    except OracleError:
        raise
    except Exception as problem:  # whatever a foreign forward raises, the answer is: it cannot
        error, reason = float("inf"), f"{type(problem).__name__}: {problem}"
    else:
        reason = f"relative error {error:.1e}"
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
def _attending(model: "PreTrainedModel", attention: str) -> Iterator[None]:
    causal = causal_model(model)
    own = causal.config._attn_implementation
    causal.set_attn_implementation(attention)
    try:
        yield
    finally:
        causal.set_attn_implementation(own)


@contextmanager
def _last_mlp_at(model: "PreTrainedModel", places: Tensor, *, of: int) -> Iterator[None]:
    """The last layer's MLP sees these tokens alone and gives zero for others: nobody reads those any more."""
    found = [module for name, module in backbone(model).named_modules() if name.endswith(".mlp")]

    def select(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (inputs[0][:, places],)

    def put_back(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return output.new_zeros(1, of, output.shape[2]).index_copy_(1, places, output)

    hooks = [
        hook
        for mlp in found[-1:]
        for hook in (mlp.register_forward_pre_hook(select), mlp.register_forward_hook(put_back))
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
