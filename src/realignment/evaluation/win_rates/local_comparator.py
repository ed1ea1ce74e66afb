"""A language model in this process that compares two answers by the probabilities of A, B and tie."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from realignment.chat_client.usage import Usage
from realignment.evaluation.win_rates.comparators import AnswerPair, Better, Preference, Preferences
from realignment.evaluation.win_rates.model_comparators import ONE_WORD, WORDS, build_messages, probe_pairs
from realignment.oracles.local_lm import AnswerHead, LocalLMOracle, find_answer_tokens
from realignment.oracles.questions import build_renderer, list_special_tokens
from realignment.oracles.reading import Reader
from realignment.policy import Policy


@dataclass(frozen=True)
class LocalLMComparator:
    """Compares the probabilities of the answers A, B and tie after each request, from one forward pass.

    It reads requests as the oracle `local_lm` does: the policy once, a prompt once for all its pairs.

    Attributes:
        oracle: Holds model, tokenizer and name; `judging` by it is not affected.
    """

    oracle: LocalLMOracle

    @property
    def name(self) -> str:
        """Kind and model of the judge, for reports."""
        return self.oracle.name

    @property
    def identity(self) -> str:
        """Digest of the model and of its requests about probes."""
        texts = [self._render(pair, policy) for policy, pair in probe_pairs(self._special_tokens)]
        digest = hashlib.sha256("\0".join([*WORDS, *texts]).encode()).hexdigest()
        return f"compare {self.oracle.identity} {digest}"

    @property
    def usage(self) -> Usage:
        """Pairs and tokens read so far."""
        return self.oracle.usage

    @torch.inference_mode()
    def stream(self, pairs: Sequence[AnswerPair], policy: Policy) -> Preferences:
        """Yield preferences batch by batch; unscored where a request is longer than the model reads."""
        if not pairs:
            return
        model = self.oracle.model
        tokenizer = self.oracle.tokenizer
        # Neighbours with the same prompt share its tokens.
        order = sorted(range(len(pairs)), key=lambda place: (pairs[place].domain or "", pairs[place].prompt))
        texts = [self._render(pairs[place], policy) for place in order]
        requests = tokenizer(texts, add_special_tokens=False)["input_ids"]
        limit = getattr(model.config, "max_position_embeddings", None) or max(map(len, requests))
        fitting = [index for index, request in enumerate(requests) if len(request) <= limit]
        for index in sorted(set(range(len(order))) - set(fitting)):
            reason = f"the request has {len(requests[index])} tokens, the model reads {limit}"
            yield order[index], Preference(None, reason)
        head = AnswerHead(model, find_answer_tokens(tokenizer, texts[0], tuple(WORDS), self.name))
        reader = Reader(model, budget=self.oracle.token_budget)
        prompts = [pairs[order[index]].prompt for index in fitting]
        for batch, states in reader([requests[index] for index in fitting], prompts):
            # States (B, d) → logits of A, B and tie (B, 3) → probabilities among the three (B, 3).
            probabilities = head(states).double().softmax(-1).tolist()
            self.usage.asked += len(batch)
            for index, shares in zip(batch, probabilities, strict=True):
                yield order[fitting[index]], choose_better(shares)
        self.usage.prompt_tokens += reader.tokens

    @cached_property
    def _special_tokens(self) -> list[str]:
        return list_special_tokens(self.oracle.tokenizer)

    @cached_property
    def _renderer(self) -> Callable[[str, str], str]:
        return build_renderer(self.oracle.tokenizer)

    def _render(self, pair: AnswerPair, policy: Policy) -> str:
        return self._renderer(*build_messages(pair, policy, ONE_WORD, self._special_tokens))


def choose_better(probabilities: Sequence[float]) -> Preference:
    """Return the most probable of the answers A, B and tie; a tie where A and B are equally probable.

    Args:
        probabilities: Of A, B and tie among the three; NaN where the model's logits are not finite.

    Returns:
        The preference; unscored where a probability is NaN.
    """
    first, second, tie = probabilities
    reason = f"P(A) = {first:.2f}, P(B) = {second:.2f}, P(tie) = {tie:.2f}"
    if not sum(probabilities) > 0:  # false of NaN too
        return Preference(None, "the model's logits are not finite")
    if first == second or tie >= max(first, second):
        return Preference(Better.TIE, reason)
    return Preference(Better.FIRST if first > second else Better.SECOND, reason)
