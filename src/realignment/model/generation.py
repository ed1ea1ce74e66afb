"""Answers of a model, greedy or sampled, in batches of prompts of similar length."""

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
    """What a model says; `complete`: it ended its turn itself and was not cut at the limit."""

    text: str
    complete: bool


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn.

    Attributes:
        temperature: Divides the logits, > 0.
        top_p: Share of the probability that is kept, the likeliest tokens first (arXiv:1904.09751).
        seed: Of the draws; with the place of a chat among the chats it decides the answer.
    """

    temperature: float
    top_p: float
    seed: int


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chats: Sequence[list[dict[str, str]]],
    *,
    max_new_tokens: int,
    batch_size: int,
    repetition_penalty: float = 1.0,
    progress: str | None = None,
) -> list[str]:
    """The text of the model's greedy answer to every chat, in order; see `answer`."""
    answers = answer(
        model,
        tokenizer,
        chats,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        repetition_penalty=repetition_penalty,
        progress=progress,
    )
    return [one.text for one in answers]


@torch.inference_mode()
def answer(
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
    """The model's answer to every chat, in order.

    Args:
        model: In evaluation mode; its device is used.
        tokenizer: The model's own.
        chats: Messages before the answer.
        max_new_tokens: Where an answer is cut at the latest.
        batch_size: Prompts at a time; they are sorted by length, so padding is little.
        repetition_penalty: Divides the logits of tokens that occurred (arXiv:1909.05858); 1: off.
        sampling: How to draw; None: greedy.
        progress: Label of the progress bar; None: no bar.
    """
    texts = [prompt_text(tokenizer, chat) for chat in chats]
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    answers: list[Answer] = [Answer("", False)] * len(texts)
    ends = _end_tokens(model, tokenizer)
    limits = {"max_new_tokens": max_new_tokens, "repetition_penalty": repetition_penalty}
    settings = _greedy(tokenizer, ends) | limits
    with tqdm(total=len(texts), desc=progress, unit="answer", disable=progress is None) as bar:
        for start in range(0, len(order), batch_size):
            members = order[start : start + batch_size]
            batch = _encode(tokenizer, [texts[i] for i in members], model.device)
            draws = [NucleusDraws(sampling, members)] if sampling else []
            output = model.generate(**batch, **settings, logits_processor=LogitsProcessorList(draws))
            for index, ids in zip(members, output[:, batch["input_ids"].shape[1] :], strict=True):
                text = tokenizer.decode(ids, skip_special_tokens=True).strip()
                answers[index] = Answer(text, complete=bool(torch.isin(ids.cpu(), torch.tensor(ends)).any()))
            bar.update(len(members))
    return answers


def _greedy(tokenizer: Any, ends: list[int]) -> dict[str, Any]:
    """The likeliest token each time; the model's own settings for sampling are set aside."""
    aside: dict[str, Any] = {"temperature": None, "top_p": None, "top_k": None}
    return aside | {"do_sample": False, "pad_token_id": tokenizer.pad_token_id, "eos_token_id": ends}


class NucleusDraws(LogitsProcessor):
    """Draws one token a row and leaves no other: greedy decoding then takes it.

    Each row has a generator of its own, one number a token, so that its draw depends on the seed and on its
    place among the chats, and not on what else is in the batch.
    """

    def __init__(self, sampling: Sampling, rows: Sequence[int]) -> None:
        self._sampling = sampling
        seeds = [(sampling.seed * 1_000_003 + row) % 2**63 for row in rows]
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """−∞ for every token but the drawn one, shape (rows, V)."""
        tokens, probabilities = nucleus(scores.float() / self._sampling.temperature, self._sampling.top_p)
        numbers = torch.cat([torch.rand(1, 1, generator=generator) for generator in self._generators])
        reached = probabilities.cumsum(dim=-1)
        place = (reached <= numbers.to(reached) * reached[:, -1:]).sum(dim=-1, keepdim=True)
        drawn = tokens.gather(-1, place.clamp(max=tokens.shape[-1] - 1))
        return torch.full_like(scores, -torch.inf).scatter(-1, drawn, 0.0)  # type: ignore[return-value]


def nucleus(logits: torch.Tensor, top_p: float, *, first: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """The smallest set of tokens whose probability reaches `top_p`: arXiv:1904.09751.

    Args:
        logits: Shape (rows, V).
        top_p: In (0, 1].
        first: So many of the likeliest tokens are looked at, and twice as many until the set is among them:
            sorting a whole vocabulary for every token costs more than a small model.

    Returns:
        Tokens, the likeliest first, and their probabilities, 0 outside of the set; both of shape (rows, k).
    """
    size = logits.shape[-1] if top_p >= 1 else min(first, logits.shape[-1])
    likeliest = logits.topk(size, dim=-1)
    probabilities = (likeliest.values - logits.logsumexp(dim=-1, keepdim=True)).exp()
    reached = probabilities.cumsum(dim=-1)
    if size < logits.shape[-1] and bool((reached[:, -1] < top_p).any()):
        return nucleus(logits, top_p, first=2 * first)
    return likeliest.indices, probabilities.masked_fill(reached - probabilities >= top_p, 0.0)


def _encode(tokenizer: Any, texts: list[str], device: torch.device) -> dict[str, torch.Tensor]:
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    # By name: some tokenizers also give token types, which a decoder does not know.
    return {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Where an answer ends: at the tokenizer's end of turn, which is trained on, or one the model names."""
    named = model.generation_config.eos_token_id
    ends = named if isinstance(named, list) else [named]
    return sorted({end for end in (*ends, tokenizer.eos_token_id) if end is not None})
