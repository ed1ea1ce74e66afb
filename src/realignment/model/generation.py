"""Generate a model's answers, greedy or sampled, in batches of prompts of similar length."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from realignment.likelihood.tokenization import prompt_text

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of a model.

    Attributes:
        text: Without special tokens and surrounding white space.
        complete: Whether the model ended its turn itself; False: it was cut at the limit.
    """

    text: str
    complete: bool


@dataclass(frozen=True, slots=True)
class Sampling:
    """Settings of nucleus sampling.

    Attributes:
        temperature: Divides the logits, > 0.
        top_p: Share of the probability that is kept, the likeliest tokens first (arXiv:1904.09751).
        seed: Of the draws; with the index of a chat among the chats it decides the answer.
    """

    temperature: float
    top_p: float
    seed: int


def generate_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chats: Sequence[list[dict[str, str]]],
    *,
    max_new_tokens: int,
    batch_size: int,
    repetition_penalty: float = 1.0,
    progress: str | None = None,
) -> list[str]:
    """Return the text of the model's greedy answer to every chat, in order; see `generate_answers`."""
    answers = generate_answers(
        model,
        tokenizer,
        chats,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        repetition_penalty=repetition_penalty,
        progress=progress,
    )
    return [answer.text for answer in answers]


@torch.inference_mode()
def generate_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chats: Sequence[list[dict[str, str]]],
    *,
    max_new_tokens: int,
    batch_size: int,
    repetition_penalty: float = 1.0,
    sampling: Sampling | None = None,
    progress: str | None = None,
) -> list[Answer]:
    """Generate the model's answer to every chat.

    Args:
        model: In evaluation mode; its device is used.
        tokenizer: The model's own.
        chats: Messages before the answer.
        max_new_tokens: Where an answer is cut at the latest.
        batch_size: Prompts at a time; they are sorted by length, so padding is little.
        repetition_penalty: Divides the logits of tokens that occurred (arXiv:1909.05858); 1: off.
        sampling: How to draw; None: greedy.
        progress: Label of the progress bar; None: no bar.

    Returns:
        One answer per chat, in order.
    """
    texts = [prompt_text(tokenizer, chat) for chat in chats]
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    answers: list[Answer] = [Answer("", False)] * len(texts)
    end_tokens = _end_tokens(model, tokenizer)
    settings = _greedy_settings(tokenizer, end_tokens)
    settings |= {"max_new_tokens": max_new_tokens, "repetition_penalty": repetition_penalty}
    with tqdm(total=len(texts), desc=progress, unit="answer", disable=progress is None) as bar:
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            batch = _encode(tokenizer, [texts[i] for i in indices], model.device)
            samplers = [NucleusSampler(sampling, indices)] if sampling else []
            output = model.generate(**batch, **settings, logits_processor=LogitsProcessorList(samplers))
            # Every prompt is padded on its left to the same length, so all answers begin at one column.
            new_tokens = output[:, batch["input_ids"].shape[1] :]
            for index, tokens in zip(indices, new_tokens, strict=True):
                answers[index] = _read_answer(tokenizer, tokens, end_tokens)
            bar.update(len(indices))
    return answers


def _read_answer(tokenizer: Any, tokens: torch.Tensor, end_tokens: list[int]) -> Answer:
    text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
    # The rest of the row after an end token is padding, so an end token anywhere says that it ended.
    ended = torch.isin(tokens.cpu(), torch.tensor(end_tokens)).any()
    return Answer(text, complete=bool(ended))


def _greedy_settings(tokenizer: Any, end_tokens: list[int]) -> dict[str, Any]:
    """Settings of greedy decoding, which switch off the model's own settings for sampling."""
    return {
        "temperature": None,
        "top_p": None,
        "top_k": None,
        "do_sample": False,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": end_tokens,
    }


class NucleusSampler(LogitsProcessor):
    """Draws one token for each row and excludes all others: greedy decoding then takes the drawn one.

    Each row has a random generator of its own, and one number of it is used per token. So the draw depends on
    the seed and on the index of the chat among the chats, and not on what else is in the batch.
    """

    def __init__(self, sampling: Sampling, rows: Sequence[int]) -> None:
        self._sampling = sampling
        seeds = [(sampling.seed * 1_000_003 + row) % 2**63 for row in rows]
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return 0 for the drawn token of each row and −∞ for every other.

        Args:
            input_ids: The tokens so far; not used.
            scores: Logits of the next token, shape (rows, V).

        Returns:
            Shape (rows, V).
        """
        tokens, probabilities = select_nucleus(
            scores.float() / self._sampling.temperature, self._sampling.top_p
        )
        # (rows, 1): one number in [0, 1) per row, from the generator of that row.
        uniforms = torch.cat([torch.rand(1, 1, generator=generator) for generator in self._generators])
        # (rows, k): the last column is the probability of the whole nucleus, which may be below 1.
        cumulative = probabilities.cumsum(dim=-1)
        # The first token whose cumulative probability exceeds the scaled number is the drawn one.
        rank = (cumulative <= uniforms.to(cumulative) * cumulative[:, -1:]).sum(dim=-1, keepdim=True)
        # By rounding the number may reach the last sum: then the last token is drawn.
        drawn = tokens.gather(-1, rank.clamp(max=tokens.shape[-1] - 1))
        return torch.full_like(scores, -torch.inf).scatter(-1, drawn, 0.0)  # type: ignore[return-value]


def select_nucleus(
    logits: torch.Tensor, top_p: float, *, first: int = 256
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the smallest set of tokens whose probability reaches `top_p` (arXiv:1904.09751).

    Args:
        logits: Shape (rows, V).
        top_p: In (0, 1].
        first: So many of the likeliest tokens are sorted, and twice as many until the set is among them:
            sorting a whole vocabulary for every token costs more than a small model.

    Returns:
        Tokens, the likeliest first, and their probabilities, 0 outside of the set; both of shape (rows, k).
    """
    size = logits.shape[-1] if top_p >= 1 else min(first, logits.shape[-1])
    likeliest = logits.topk(size, dim=-1)  # values and indices, both (rows, size)
    # Normalised over the whole vocabulary, not over the `size` likeliest tokens.
    probabilities = (likeliest.values - logits.logsumexp(dim=-1, keepdim=True)).exp()
    cumulative = probabilities.cumsum(dim=-1)
    if size < logits.shape[-1] and bool((cumulative[:, -1] < top_p).any()):
        return select_nucleus(logits, top_p, first=2 * first)
    # A token belongs to the set if the likelier ones before it do not reach `top_p` by themselves.
    outside = cumulative - probabilities >= top_p
    return likeliest.indices, probabilities.masked_fill(outside, 0.0)


def _encode(tokenizer: Any, texts: list[str], device: torch.device) -> dict[str, torch.Tensor]:
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    # By name: some tokenizers also return token types, which a decoder does not take.
    return {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer: the tokenizer's end of turn, which is trained on, and the model's own."""
    configured = model.generation_config.eos_token_id
    tokens = {tokenizer.eos_token_id}
    tokens.update(configured if isinstance(configured, list) else [configured])
    return sorted(tokens - {None})
