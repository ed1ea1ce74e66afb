"""A language model in this process as judge: no text is generated, two answer tokens are compared."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from realignment.chat_client.usage import Usage
from realignment.likelihood.backbone import backbone, causal_model
from realignment.oracles.protocol import Judgments, in_order
from realignment.oracles.questions import Question
from realignment.oracles.reading import Reader
from realignment.policy import Policy
from realignment.records import Exchange, Judgment, OracleError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_AT_A_TIME = 1024
"""Exchanges whose requests are in memory; each such part reads the policy anew."""


@dataclass(frozen=True, eq=False)
class LocalLMOracle:
    """Asks the model once per exchange, with one forward pass over what is not shared.

    What requests share is read once: the policy by all, a prompt by the responses to it (see `reading`). Of
    the head only the last position and the two answers' rows are computed. The verdict is that of a full
    forward pass per request.

    Attributes:
        model: Any causal language model with a key-value cache.
        tokenizer: Its own.
        question: From `chat_question` or `guard_question`.
        name: What reports call it.
        identity: Digest of model and question, for the verdict store.
        token_budget: Tokens of a batch, besides the policy's.
        usage: What it has read so far.
    """

    model: "PreTrainedModel"
    tokenizer: PreTrainedTokenizerBase
    question: Question
    name: str
    identity: str
    token_budget: int
    usage: Usage = field(default_factory=Usage)

    def __call__(self, exchanges: Sequence[Exchange], policy: Policy) -> list[Judgment]:
        """One judgment per exchange; confidence is the probability of its verdict, of the two."""
        return in_order(self, exchanges, policy)

    @torch.inference_mode()
    def stream(self, exchanges: Sequence[Exchange], policy: Policy) -> Judgments:
        """Judgments batch by batch, neighbours those of one prompt."""
        order = sorted(range(len(exchanges)), key=lambda place: _prompt(exchanges[place]))
        for start in range(0, len(order), _AT_A_TIME):
            places = order[start : start + _AT_A_TIME]
            for index, judgment in self._judge_all([exchanges[place] for place in places], policy):
                yield places[index], judgment

    def _judge_all(self, exchanges: Sequence[Exchange], policy: Policy) -> Judgments:
        requests, answers = self._tokenize([self.question.render(policy, exchange) for exchange in exchanges])
        limit = getattr(self.model.config, "max_position_embeddings", None) or max(map(len, requests))
        fitting = [index for index, request in enumerate(requests) if len(request) <= limit]
        for index in sorted(set(range(len(requests))) - set(fitting)):
            found = f"the request has {len(requests[index])} tokens, the model reads {limit}"
            yield index, Judgment(None, 0.0, reason=found, oracle=self.name)
        head, read = _AnswerHead(self.model, answers), self._reader.tokens
        prompts = [_prompt(exchanges[index]) for index in fitting]
        for batch, states in self._reader([requests[index] for index in fitting], prompts):
            logits = head(states)
            exact = torch.promote_types(logits.dtype, torch.float32)
            probabilities = logits.softmax(-1, dtype=exact)[:, 0].tolist()
            self.usage.asked += len(batch)
            self.usage.prompt_tokens += self._reader.tokens - read
            read = self._reader.tokens
            yield from zip((fitting[i] for i in batch), map(self._judge, probabilities), strict=True)

    @cached_property
    def _reader(self) -> Reader:
        return Reader(self.model, budget=self.token_budget)

    def _tokenize(self, texts: list[str]) -> tuple[list[list[int]], tuple[int, int]]:
        """Requests as ids, and the ids that the two answers begin with where they follow a request."""
        requests = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        both = [texts[0] + self.question.complies, texts[0] + self.question.violates]
        begun = self.tokenizer(both, add_special_tokens=False)["input_ids"]
        start = len(requests[0])
        tokens = [answer[start] if answer[:start] == requests[0] else -1 for answer in begun]
        if -1 in tokens or tokens[0] == tokens[1]:
            raise OracleError(
                f"{self.name}: its tokenizer gives the answers {self.question.complies!r} and "
                f"{self.question.violates!r} no first tokens of their own after the question (found "
                f"{tokens}). Choose another model or `judging.local_lm.template`."
            )
        return list(requests), (tokens[0], tokens[1])

    def _judge(self, probability: float) -> Judgment:
        if probability != probability:
            return Judgment(None, 0.0, reason="the model's logits are not finite", oracle=self.name)
        confidence = max(probability, 1 - probability)
        reason = f"P(complies) = {probability:.2f}"
        return Judgment(probability >= 0.5, confidence, reason=reason, oracle=self.name)


def _prompt(exchange: Exchange) -> tuple[str, str]:
    """What the requests of several responses have in common."""
    return exchange.domain or "", exchange.prompt


class _AnswerHead:
    """The two answers' logits, checked against the model's own: some models scale or cap them."""

    def __init__(self, model: "PreTrainedModel", answers: tuple[int, int]) -> None:
        self._head = model.get_output_embeddings()
        self._config = causal_model(model).config
        self._answers = torch.tensor(answers, device=model.device)
        ids = self._answers[None]
        own = model(input_ids=ids).logits[0, -1, self._answers]
        ours = self(backbone(model)(input_ids=ids).last_hidden_state[0, -1:])[0]
        near = max(1e-3, 8 * torch.finfo(model.dtype).eps)
        size = float(own.abs().nan_to_num().max())
        if not torch.allclose(ours, own.to(ours.dtype), rtol=near, atol=near * size, equal_nan=True):
            raise OracleError(
                f"{type(model).__name__} makes its logits in a way that this oracle does not know: expected "
                f"{own.tolist()}, computed {ours.tolist()}. Serve it, and judge by `judging.oracle: chat`."
            )

    def __call__(self, states: Tensor) -> Tensor:
        """Logits of complies and violates, shape (B, 2), from states of shape (B, d)."""
        logits: Tensor
        rows = self._head.weight[self._answers]
        bias = getattr(self._head, "bias", None)
        logits = states.to(rows.device) @ rows.t()
        logits = logits if bias is None else logits + bias[self._answers]
        logits = (
            logits * getattr(self._config, "logit_scale", 1.0) / getattr(self._config, "logits_scaling", 1.0)
        )
        cap = getattr(self._config, "final_logit_softcapping", None)
        return torch.tanh(logits / cap) * cap if cap else logits
