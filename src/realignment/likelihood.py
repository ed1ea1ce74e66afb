"""Log-probabilities of responses: tokenise, lay a pair out as one row that shares its prompt, score response tokens only."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from realignment.records import RealignmentError


class LikelihoodError(RealignmentError):
    """The model's likelihoods cannot be computed exactly."""


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """A prompt and its responses as token ids; every response ends with the end-of-turn token."""

    prompt: list[int]
    responses: tuple[list[int], ...]

    def __len__(self) -> int:
        return len(self.prompt) + sum(map(len, self.responses))


def chat_messages(prompt: str, messages: str | None = None) -> list[dict[str, str]]:
    """The chat before the response: `messages` (JSON) where the data gives it, else one user turn."""
    if isinstance(messages, str) and messages:
        return json.loads(messages)  # type: ignore[no-any-return]
    return [{"role": "user", "content": prompt}]


def prompt_text(tokenizer: PreTrainedTokenizerBase, chat: list[dict[str, str]]) -> str:
    """The text the model continues: the chat template with its generation prompt; the bare turns where there is none."""
    if tokenizer.chat_template is None:
        return "\n\n".join(turn["content"] for turn in chat) + "\n\n"
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))


def tokenize_pair(
    tokenizer: PreTrainedTokenizerBase,
    chat: list[dict[str, str]],
    responses: Sequence[str],
    *,
    max_response_tokens: int,
) -> TokenizedPair:
    """Prompt and responses as ids. Prompt and response are tokenised apart, so the prompt is what generation sees.

    Args:
        tokenizer: The model's own.
        chat: Messages before the response.
        responses: Texts, without any template.
        max_response_tokens: Longer responses are cut, and then end without an end-of-turn token.
    """

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    end = tokenizer.eos_token_id
    completions = ([*encode(text.strip()), end][:max_response_tokens] for text in responses)
    return TokenizedPair(prompt=encode(prompt_text(tokenizer, chat)), responses=tuple(completions))


@dataclass(frozen=True, slots=True)
class Rows:
    """Pairs laid out for one forward pass, and where each response token is predicted.

    B rows of at most L tokens; R responses over all rows; N response tokens over all responses.

    Attributes:
        input_ids: Shape (B, L).
        position_ids: Shape (B, L); positions restart at the end of the prompt for each response.
        attention_mask: (B, 1, L, L) additive mask under which no response sees another.
        row: Row of each token, shape (N,).
        source: Position of the hidden state that predicts the token, shape (N,).
        target: The token's id, shape (N,).
        response: Which response the token belongs to, shape (N,).
        pair: Which pair of the batch each response belongs to, shape (R,).
        length: Tokens of each response, shape (R,).
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor
    row: Tensor
    source: Tensor
    target: Tensor
    response: Tensor
    pair: Tensor
    length: Tensor

    def to(self, device: torch.device | str) -> "Rows":
        """The same rows on another device."""
        return Rows(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def select(self, pairs: Tensor) -> "Rows":
        """The rows of some pairs alone (one row a pair), renumbered in the given order.

        Args:
            pairs: Indices of pairs, shape (K,).
        """
        rank = torch.full((self.input_ids.shape[0],), -1, device=pairs.device)
        rank[pairs] = torch.arange(len(pairs), device=pairs.device)
        kept = rank[self.pair] >= 0
        response_rank = torch.cumsum(kept, 0) - 1
        tokens = kept[self.response]
        return Rows(
            self.input_ids[pairs], self.position_ids[pairs], self.attention_mask[pairs],
            rank[self.row[tokens]], self.source[tokens], self.target[tokens], response_rank[self.response[tokens]],
            rank[self.pair[kept]], self.length[kept],
        )  # fmt: skip


def lay_out(pairs: Sequence[TokenizedPair], *, pad_id: int, dtype: torch.dtype = torch.float32) -> Rows:
    """One row a pair: ``[prompt | response | response …]``; the prompt is computed once, responses never see each other.

    Prefix sharing: arXiv:2410.20305. The first token of every response is predicted from the prompt's last position.

    Args:
        pairs: What to lay out, at least one; every prompt has at least one token.
        pad_id: Fills rows to equal length; padding is never attended to by a real token.
        dtype: Of the additive mask: the dtype the model computes in.
    """
    longest = max(map(len, pairs))
    shape = (len(pairs), longest)
    ids, positions = torch.full(shape, pad_id), torch.zeros(shape, dtype=torch.long)
    visible = torch.eye(longest, dtype=torch.bool).repeat(len(pairs), 1, 1)
    tokens: list[tuple[int, int, int, int]] = []
    owners, lengths = [], []
    for index, pair in enumerate(pairs):
        start = len(pair.prompt)
        if start == 0:
            raise LikelihoodError(
                f"Pair {index} has an empty prompt: a response needs a token to be predicted from."
            )
        ids[index, :start], positions[index, :start] = torch.tensor(pair.prompt), torch.arange(start)
        visible[index, : len(pair)] |= torch.tril(torch.ones(len(pair), longest, dtype=torch.bool))
        prompt_end = start
        for response in pair.responses:
            end = start + len(response)
            ids[index, start:end] = torch.tensor(response, dtype=torch.long)
            positions[index, start:end] = torch.arange(prompt_end, prompt_end + len(response))
            visible[index, start:end, prompt_end:start] = False
            sources = [prompt_end - 1, *range(start, end - 1)][: len(response)]
            tokens += [
                (index, source, token, len(owners)) for source, token in zip(sources, response, strict=True)
            ]
            owners.append(index)
            lengths.append(len(response))
            start = end
    row, source, target, response_index = torch.tensor(tokens, dtype=torch.long).reshape(-1, 4).unbind(1)
    mask = torch.zeros(visible.shape, dtype=dtype).masked_fill_(~visible, torch.finfo(dtype).min)[:, None]
    return Rows(
        ids, positions, mask, row, source, target, response_index, torch.tensor(owners), torch.tensor(lengths)
    )


def causal_model(model: Any) -> PreTrainedModel:
    """The Hugging Face causal model inside a PEFT wrapper, or the model itself."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


def output_head(model: Any) -> Tensor:
    """The output embedding, shape (V, d)."""
    return causal_model(model).get_output_embeddings().weight  # type: ignore[union-attr, return-value]


def response_hidden_states(model: Any, rows: Rows) -> Tensor:
    """Last hidden states at the positions that predict response tokens, shape (N, d)."""
    causal = causal_model(model)
    backbone = getattr(causal, causal.base_model_prefix)
    output = backbone(
        input_ids=rows.input_ids,
        attention_mask=rows.attention_mask,
        position_ids=rows.position_ids,
        use_cache=False,
    )
    return output.last_hidden_state[rows.row, rows.source]  # type: ignore[no-any-return]


class _TokenLogProbabilities(torch.autograd.Function):
    """log π(target) tile by tile; the backward recomputes a tile's logits, so N × V is never held."""

    @staticmethod
    def forward(ctx, hidden, head, target, tile):  # type: ignore[no-untyped-def]
        exact = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        value = torch.empty(hidden.shape[0], dtype=exact, device=hidden.device)
        normaliser = torch.empty_like(value)
        for start in range(0, hidden.shape[0], tile):
            part = slice(start, start + tile)
            logits = (hidden[part] @ head.t()).to(exact)
            normaliser[part] = torch.logsumexp(logits, dim=-1)
            value[part] = logits.gather(1, target[part, None])[:, 0] - normaliser[part]
        ctx.save_for_backward(hidden, head, target, normaliser)
        ctx.tile = tile
        return value

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        hidden, head, target, normaliser = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        grad_head = torch.zeros_like(head) if ctx.needs_input_grad[1] else None
        for start in range(0, hidden.shape[0], ctx.tile):
            part = slice(start, start + ctx.tile)
            logits = (hidden[part] @ head.t()).to(grad.dtype)
            grad_logits = logits.sub_(normaliser[part, None]).exp_().mul_(-grad[part, None])
            grad_logits.scatter_add_(1, target[part, None], grad[part, None])
            grad_logits = grad_logits.to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = grad_logits @ head
            if grad_head is not None:
                grad_head.addmm_(grad_logits.t(), hidden[part])
        return grad_hidden, grad_head, None, None


def token_log_probabilities(hidden: Tensor, head: Tensor, target: Tensor, *, tile: int = 256) -> Tensor:
    """log π(target_t | prefix), shape (N,), in nats.

    Args:
        hidden: States that predict the tokens, shape (N, d).
        head: Output embedding, shape (V, d).
        target: Token ids, shape (N,).
        tile: Tokens whose logits are held at once.
    """
    return _TokenLogProbabilities.apply(hidden, head, target, tile)  # type: ignore[no-any-return]


def sum_per_response(values: Tensor, rows: Rows) -> Tensor:
    """Token values (N,) added up per response, shape (R,)."""
    return values.new_zeros(len(rows.length)).index_add(0, rows.response, values)


def response_log_probabilities(model: Any, rows: Rows) -> Tensor:
    """log π(y|x) of every response, summed over its tokens incl. end-of-turn, in nats, shape (R,)."""
    hidden = response_hidden_states(model, rows)
    return sum_per_response(token_log_probabilities(hidden, output_head(model), rows.target), rows)


def batches_by_tokens(lengths: Sequence[int], *, budget: int) -> Iterator[list[int]]:
    """Indices in batches of similar length whose padded size stays within a token budget (one row at least)."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if batch and lengths[batch[0]] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


@torch.no_grad()
def check_shared_prompt(model: PreTrainedModel, *, tolerance: float = 1e-3) -> None:
    """Refuse a model whose attention ignores the mask (recurrent, hybrid), or whose head is more than one matrix.

    Compares one laid-out row with the model's own logits on each response alone.

    Raises:
        LikelihoodError: The two differ by more than `tolerance` nats.
    """
    vocabulary = output_head(model).shape[0]
    token = torch.arange(1, 16, device=model.device) * 7 % vocabulary
    prompt, first, second = (part.tolist() for part in token.split(5))
    rows = lay_out([TokenizedPair(prompt, (first, second))], pad_id=0, dtype=model.dtype).to(model.device)
    shared = response_log_probabilities(model, rows)
    for value, response in zip(shared, (first, second), strict=True):
        ids = torch.tensor([prompt + response], device=model.device)
        logits = model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
        alone = logits.log_softmax(-1).gather(1, torch.tensor(response, device=model.device)[:, None]).sum()
        if not abs(value - alone) <= tolerance * max(1.0, abs(float(alone))):
            raise LikelihoodError(
                f"{type(model).__name__} gives log-probability {float(value):.4f} with a shared prompt and {float(alone):.4f} "
                "alone: its attention does not honour a 4-D mask, or its head is not one matrix (soft-capping, bias). "
                "Expected a decoder such as Llama, Qwen, Mistral or SmolLM."
            )
