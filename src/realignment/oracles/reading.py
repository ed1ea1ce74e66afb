"""Hidden states at the end of each request, with what requests share (policy and prompts) read only once."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from torch import Tensor

from realignment.likelihood.packing import Layout
from realignment.likelihood.tokenization import TokenizedPair
from realignment.oracles.forward import can_branch, read_in_one_row, read_padded, read_prefix

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Reader:
    """Reads requests in one row where the model's attention can be taken apart, else in padded rows.

    Attributes:
        tokens: How many it has read so far, each shared one once.
    """

    def __init__(self, model: "PreTrainedModel", *, budget: int) -> None:
        """Measure how this model can read, by `can_branch`.

        Args:
            model: Any causal language model with a key-value cache.
            budget: Tokens of a batch, besides those that all requests share (but one request at least).
        """
        self._model = model
        self._budget = budget
        self._branches = can_branch(model)
        self._layout = Layout(pad_id=0, share_prompts=self._branches)
        self.tokens = 0

    def __call__(
        self, requests: Sequence[list[int]], prompts: Sequence[object]
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Yield the indices of a batch of requests and the hidden states of their last tokens, shape (B, d).

        Args:
            requests: Token ids, one at least each.
            prompts: What each request asks about; where neighbours have the same, they share it.

        Yields:
            Indices into `requests`, and the states in the same order; every request once.
        """
        # 1. The prefix of all requests (instruction and policy) is read once, into a key-value cache.
        prefix = find_shared_prefix(requests)
        cache = read_prefix(self._model, prefix)
        self.tokens += len(prefix)
        rests = [request[len(prefix) :] for request in requests]
        # 2. Neighbours that ask about the same prompt share its tokens too: one tree each, whose trunk is the
        #    prompt and whose branches are the responses.
        runs = list(_find_runs(rests, prompts, self._budget))
        trees = [_share_prompt([rests[index] for index in run]) for run in runs]
        # 3. Trees of similar length are read together, `budget` tokens at a time.
        read = read_in_one_row if self._branches else read_padded
        for batch in self._layout.batches(trees, budget=self._budget):
            batch_trees = [trees[number] for number in batch]
            self.tokens += sum(map(len, batch_trees))
            states = read(self._model, batch_trees, cache)  # (B, d), tree after tree
            indices: list[int] = []
            for number in batch:
                indices += runs[number]
            yield indices, states


def find_shared_prefix(requests: Sequence[list[int]]) -> list[int]:
    """Return the tokens that all requests begin with; each keeps one token of its own at least."""
    if not requests:
        return []
    longest = min(map(len, requests)) - 1
    # In lexicographic order, the first and the last request differ no later than any other two do.
    first = min(requests)
    last = max(requests)
    differences = (i for i, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    return first[: min(next(differences, longest), longest)]


def _find_runs(rests: Sequence[list[int]], prompts: Sequence[object], budget: int) -> Iterator[list[int]]:
    """Yield indices of neighbours with the same prompt, as many as fit a batch of `budget` tokens."""
    for _, neighbours in groupby(range(len(rests)), key=prompts.__getitem__):
        run: list[int] = []
        for index in neighbours:
            if run and sum(len(rests[i]) for i in run) + len(rests[index]) > budget:
                yield run
                run = []
            run.append(index)
        yield run


def _share_prompt(rests: Sequence[list[int]]) -> TokenizedPair:
    """Split requests into the tokens that they share and what follows in each."""
    shared = find_shared_prefix(rests)
    return TokenizedPair(shared, tuple(rest[len(shared) :] for rest in rests))
