"""A language model in this process as judge: no text is generated, two answer tokens are compared."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer

from realignment.likelihood import causal_model
from realignment.oracles import Judgments, OracleError, Usage, in_order
from realignment.oracles.questions import Question
from realignment.policy import Policy
from realignment.records import Exchange, Judgment
from realignment.rows import batches_by_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, eq=False)
class LocalLMOracle:
    """Asks the model once per exchange, with one forward pass over what is not shared.

    The tokens that all requests begin with (the policy) are computed once per call and their keys and values
    reused; of the head only the last position and the two answers' rows are computed. Batches are padded on
    the right, which no real token sees, so the verdict is that of a full forward pass per request.

    Attributes:
        model: Any causal language model with a key-value cache.
        tokenizer: Its own.
        question: From `chat_question` or `guard_question`.
        name: What reports call it.
        identity: Digest of model and question, for the verdict store.
        token_budget: Tokens of a batch, the shared ones counted for every row.
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
        """Judgments batch by batch, the longest requests first."""
        if not exchanges:
            return
        requests, answers = self._tokenize([self.question.render(policy, exchange) for exchange in exchanges])
        limit = getattr(self.model.config, "max_position_embeddings", None) or max(map(len, requests))
        fitting = [position for position, request in enumerate(requests) if len(request) <= limit]
        for position in sorted(set(range(len(requests))) - set(fitting)):
            found = f"the request has {len(requests[position])} tokens, the model reads {limit}"
            yield position, Judgment(None, 0.0, reason=found, oracle=self.name)
        head = _AnswerHead(self.model, answers)
        prefix = shared_prefix([requests[position] for position in fitting])
        cache = self._compute(prefix)
        for batch in batches_by_tokens([len(requests[p]) for p in fitting], budget=self.token_budget):
            positions = [fitting[index] for index in batch]
            rests = [requests[position][len(prefix) :] for position in positions]
            logits = head(self._last_states(rests, len(prefix), cache))
            yield from zip(positions, map(self._judge, logits.softmax(-1)[:, 0].tolist()), strict=True)
            self.usage.asked += len(batch)
            self.usage.prompt_tokens += sum(map(len, rests))

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

    def _compute(self, prefix: list[int]) -> DynamicCache:
        """Keys and values of the shared tokens."""
        cache = DynamicCache(config=causal_model(self.model).config)
        if not all(isinstance(layer, DynamicLayer) for layer in cache.layers):
            raise OracleError(
                f"{type(causal_model(self.model)).__name__} is recurrent, in part at least: it keeps a state "
                "and not keys and values, so requests cannot share the policy. Serve it, and judge by "
                "`judging.oracle: chat`."
            )
        if prefix:
            ids = torch.tensor([prefix], device=self.model.device)
            _backbone(self.model)(input_ids=ids, past_key_values=cache, use_cache=True)
            self.usage.prompt_tokens += len(prefix)
        return cache

    def _last_states(self, rests: list[list[int]], shared: int, cache: DynamicCache) -> Tensor:
        """Hidden state of each request's last token, shape (B, d)."""
        longest = max(map(len, rests))
        ids = torch.zeros(len(rests), longest, dtype=torch.long)
        seen = torch.zeros(len(rests), shared + longest, dtype=torch.long)
        for row, rest in enumerate(rests):
            ids[row, : len(rest)] = torch.tensor(rest)
            seen[row, : shared + len(rest)] = 1
        positions = torch.arange(shared, shared + longest).expand(len(rests), -1)
        device = self.model.device
        keys_and_values = copy.deepcopy(cache)
        if shared:
            keys_and_values.batch_repeat_interleave(len(rests))
        states = _backbone(self.model)(
            input_ids=ids.to(device),
            attention_mask=seen.to(device),
            position_ids=positions.to(device),
            past_key_values=keys_and_values,
            use_cache=True,
        ).last_hidden_state
        return states[torch.arange(len(rests)), torch.tensor([len(rest) - 1 for rest in rests])]  # type: ignore[no-any-return]

    def _judge(self, probability: float) -> Judgment:
        if probability != probability:
            return Judgment(None, 0.0, reason="the model's logits are not finite", oracle=self.name)
        confidence = max(probability, 1 - probability)
        reason = f"P(complies) = {probability:.2f}"
        return Judgment(probability >= 0.5, confidence, reason=reason, oracle=self.name)


class _AnswerHead:
    """The two answers' logits, checked against the model's own: some models scale or cap them."""

    def __init__(self, model: "PreTrainedModel", answers: tuple[int, int]) -> None:
        self._head = model.get_output_embeddings()
        self._config = causal_model(model).config
        self._answers = torch.tensor(answers, device=model.device)
        ids = self._answers[None]
        own = model(input_ids=ids).logits[0, -1, self._answers]
        ours = self(_backbone(model)(input_ids=ids).last_hidden_state[0, -1:])[0]
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


def _backbone(model: "PreTrainedModel") -> Any:
    causal = causal_model(model)
    return getattr(causal, causal.base_model_prefix)


def shared_prefix(requests: Sequence[list[int]]) -> list[int]:
    """The tokens that all requests begin with; each keeps one of its own at least."""
    if not requests:
        return []
    first, last, length = min(requests), max(requests), min(map(len, requests)) - 1  # in order of content
    differ = (i for i, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    return first[: min(next(differ, length), length)]
