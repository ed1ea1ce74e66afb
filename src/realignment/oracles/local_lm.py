"""A language model in this process as judge: it generates no text, two answer tokens are compared."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from realignment.chat_client.usage import Usage
from realignment.likelihood.backbone import backbone, causal_model
from realignment.oracles.protocol import Judgments, judge_in_order
from realignment.oracles.questions import Question
from realignment.oracles.reading import Reader
from realignment.policy import Policy
from realignment.records import Exchange, Judgment, OracleError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_EXCHANGES_IN_MEMORY = 1024
"""Exchanges whose requests are in memory at a time; the policy is read again for each such part."""


@dataclass(frozen=True, eq=False)
class LocalLMOracle:
    """Compares the probabilities of two answers after each request, from one forward pass per exchange.

    What requests share is read once (prefix caching): the policy for all, a prompt for the responses to it
    (see `reading`). Of the head only the last position and the two answers' rows are computed. The verdict is
    that of a full forward pass per request.

    Attributes:
        model: Any causal language model with a key-value cache.
        tokenizer: The model's own.
        question: From `build_chat_question` or `build_guard_question`.
        name: Name of the oracle in reports.
        identity: Digest of model and question, for the verdict store.
        token_budget: Tokens of a batch, besides the policy's.
        usage: Exchanges and tokens read so far.
    """

    model: "PreTrainedModel"
    tokenizer: PreTrainedTokenizerBase
    question: Question
    name: str
    identity: str
    token_budget: int
    usage: Usage = field(default_factory=Usage)

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """Return one judgment per exchange; confidence is the verdict's probability among the two answers."""
        return judge_in_order(self, exchanges, policy)

    @torch.inference_mode()
    def stream(self, exchanges: Sequence[Exchange], policy: Policy) -> Judgments:
        """Yield judgments batch by batch, those of one prompt together."""
        # Neighbours with the same prompt share its tokens.
        order = sorted(range(len(exchanges)), key=lambda place: _prompt(exchanges[place]))
        for start in range(0, len(order), _EXCHANGES_IN_MEMORY):
            places = order[start : start + _EXCHANGES_IN_MEMORY]
            for index, judgment in self._judge_all([exchanges[place] for place in places], policy):
                yield places[index], judgment

    def _judge_all(self, exchanges: Sequence[Exchange], policy: Policy) -> Judgments:
        requests, answers = self._tokenize([self.question.render(policy, exchange) for exchange in exchanges])
        limit = getattr(self.model.config, "max_position_embeddings", None) or max(map(len, requests))
        fitting: list[int] = []  # indices of requests that the model can read
        for index, request in enumerate(requests):
            if len(request) <= limit:
                fitting.append(index)
                continue
            reason = f"the request has {len(request)} tokens, the model reads {limit}"
            yield index, Judgment(None, 0.0, reason=reason, oracle=self.name)
        head = AnswerHead(self.model, answers)
        tokens_before = self._reader.tokens
        prompts = [_prompt(exchanges[index]) for index in fitting]
        for batch, states in self._reader([requests[index] for index in fitting], prompts):
            # States (B, d) → logits of the two answers (B, 2) → P(complies) among the two (B,), in float32 at
            # least: half precision would round the confidence.
            logits = head(states)
            exact = torch.promote_types(logits.dtype, torch.float32)
            probabilities = logits.softmax(-1, dtype=exact)[:, 0].tolist()
            self.usage.asked += len(batch)
            self.usage.prompt_tokens += self._reader.tokens - tokens_before
            tokens_before = self._reader.tokens
            for index, probability in zip(batch, probabilities, strict=True):
                yield fitting[index], self._judge(probability)

    @cached_property
    def _reader(self) -> Reader:
        return Reader(self.model, budget=self.token_budget)

    def _tokenize(self, texts: list[str]) -> tuple[list[list[int]], tuple[int, int]]:
        """Return requests as ids, and the first id of each of the two answers where it follows a request."""
        requests = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        answers = (self.question.complies, self.question.violates)
        complies, violates = find_answer_tokens(self.tokenizer, texts[0], answers, self.name)
        return list(requests), (complies, violates)

    def _judge(self, probability: float) -> Judgment:
        if math.isnan(probability):
            return Judgment(None, 0.0, reason="the model's logits are not finite", oracle=self.name)
        confidence = max(probability, 1 - probability)
        reason = f"P(complies) = {probability:.2f}"
        return Judgment(probability >= 0.5, confidence, reason=reason, oracle=self.name)


def _prompt(exchange: Exchange) -> tuple[str, str]:
    """Return what the requests of several responses to one prompt have in common."""
    return exchange.domain or "", exchange.prompt


def find_answer_tokens(
    tokenizer: PreTrainedTokenizerBase, request: str, answers: Sequence[str], name: str
) -> tuple[int, ...]:
    """Return the first token of each answer where it follows the request.

    Args:
        tokenizer: The model's own.
        request: Text up to where the answer begins.
        answers: The answers that are compared.
        name: Name of the judge, for the message.

    Returns:
        One id per answer, all different.

    Raises:
        OracleError: Two answers begin with the same token, or one is merged with what precedes it.
    """
    # In context, since a tokenizer may merge an answer's first letters with what precedes them.
    texts = [request, *(request + answer for answer in answers)]
    asked, *answered = tokenizer(texts, add_special_tokens=False)["input_ids"]
    start = len(asked)
    tokens = [ids[start] if ids[:start] == asked else -1 for ids in answered]
    if -1 in tokens or len(set(tokens)) < len(tokens):
        raise OracleError(
            f"{name}: its tokenizer gives the answers {' and '.join(map(repr, answers))} no first tokens of "
            f"their own after the question (found {tokens}). Choose another model or "
            "`judging.local_lm.template`."
        )
    return tuple(tokens)


class AnswerHead:
    """Computes a few answers' logits, checked against the model's own: some models scale or cap them."""

    def __init__(self, model: "PreTrainedModel", answers: Sequence[int]) -> None:
        self._head = model.get_output_embeddings()
        self._config = causal_model(model).config
        self._answers = torch.tensor(answers, device=model.device)
        # Any short input serves for the check; the answers' tokens are at hand.
        ids = self._answers[None]
        expected = model(input_ids=ids).logits[0, -1, self._answers]  # (A,)
        computed = self(backbone(model)(input_ids=ids).last_hidden_state[0, -1:])[0]  # (A,)
        tolerance = max(1e-3, 8 * torch.finfo(model.dtype).eps)
        size = float(expected.abs().nan_to_num().max())
        same = torch.allclose(
            computed, expected.to(computed.dtype), rtol=tolerance, atol=tolerance * size, equal_nan=True
        )
        if not same:
            raise OracleError(
                f"{type(model).__name__} computes its logits in a way that this oracle does not support: "
                f"expected {expected.tolist()}, computed {computed.tolist()}. Serve the model, and judge by "
                "`judging.oracle: chat`."
            )

    def __call__(self, states: Tensor) -> Tensor:
        """Return the logits of the A answers, shape (B, A), from states of shape (B, d)."""
        logits: Tensor
        rows = self._head.weight[self._answers]  # (A, d) of the head's (V, d)
        bias = getattr(self._head, "bias", None)
        logits = states.to(rows.device) @ rows.t()
        if bias is not None:
            logits = logits + bias[self._answers]
        # Cohere multiplies its logits, Granite divides them, and Gemma 2 caps them.
        scale = getattr(self._config, "logit_scale", 1.0)
        divisor = getattr(self._config, "logits_scaling", 1.0)
        logits = logits * scale / divisor
        cap = getattr(self._config, "final_logit_softcapping", None)
        return torch.tanh(logits / cap) * cap if cap else logits
