"""Generate a model's answers, greedy or sampled, in batches of prompts of similar length."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from realignment.likelihood.tokenization import prompt_text
from realignment.model.decoding import Choose, Row, add_tokens, decode
from realignment.model.key_values import has_key_values_alone


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of a model.

    Attributes:
        text: Without special tokens and surrounding white space.
        complete: Whether the model ended its turn itself; False: it was cut at the limit.
        entropy: Mean entropy of the distributions that its tokens were chosen from, the end token's included:
            of the model's own, before penalty, temperature and nucleus; nats per token.
    """

    text: str
    complete: bool
    # Rounding depends on what else is in the batch, so two answers are the same by the rest.
    entropy: float = field(compare=False)


@dataclass(frozen=True, slots=True)
class Sampling:
    """Settings of nucleus sampling.

    Attributes:
        temperature: Divides the logits, > 0.
        top_p: Share of the probability that is kept, the likeliest tokens first (arXiv:1904.09751).
        seed: Of the draws; with the number of its stream it decides a chat's answer.
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
    streams: Sequence[int] | None = None,
    progress: str | None = None,
) -> list[Answer]:
    """Generate the model's answer to every chat.

    Args:
        model: In evaluation mode; its device is used.
        tokenizer: The model's own.
        chats: Messages before the answer.
        max_new_tokens: Where an answer is cut at the latest.
        batch_size: Answers in work at a time; prompts are sorted by length, so padding is little.
        repetition_penalty: Divides the logits of tokens that occurred (arXiv:1909.05858); 1: off.
        sampling: How to draw; None: greedy.
        streams: Number of each chat's stream of random draws; None: its index among the chats.
        progress: Label of the progress bar; None: no bar.

    Returns:
        One answer per chat, in order.
    """
    texts = [prompt_text(tokenizer, chat) for chat in chats]
    if not texts:
        return []
    prompts = tokenizer(texts, add_special_tokens=False)["input_ids"]
    rows = [Row(prompt) for prompt in prompts]
    if sampling is not None:
        numbers = range(len(rows)) if streams is None else streams
        for row, number in zip(rows, numbers, strict=True):
            row.generator = _seed_generator(sampling, number)
    order = sorted(rows, key=lambda row: len(row.prompt))
    choose = _choice(sampling, repetition_penalty)
    run = decode if has_key_values_alone(model) else decode_in_batches
    with tqdm(total=len(rows), desc=progress, unit="answer", disable=progress is None) as bar:
        run(
            model,
            order,
            choose,
            end_tokens=_end_tokens(model, tokenizer),
            pad_token=int(tokenizer.pad_token_id),
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            report=bar.update,
        )
    return [_read_answer(tokenizer, row) for row in rows]


def _read_answer(tokenizer: Any, row: Row) -> Answer:
    text = tokenizer.decode(row.tokens, skip_special_tokens=True).strip()
    return Answer(text, complete=row.ended, entropy=row.entropy / len(row.tokens))


def decode_in_batches(
    model: Any,
    rows: Sequence[Row],
    choose: Choose,
    *,
    end_tokens: Sequence[int],
    pad_token: int,
    max_new_tokens: int,
    batch_size: int,
    report: Callable[[int], object],
) -> None:
    """Do what `decode` does by transformers' own generation: every batch waits for its longest answer.

    For models that keep more than keys and values of earlier tokens. Arguments as for `decode`.
    """
    # Greedy decoding; None switches off the model's own settings for sampling.
    settings = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        width = max(len(row.prompt) for row in batch)
        tokens = [[pad_token] * (width - len(row.prompt)) + list(row.prompt) for row in batch]
        is_token = [[0] * (width - len(row.prompt)) + [1] * len(row.prompt) for row in batch]
        model.generate(
            input_ids=torch.tensor(tokens, device=model.device),
            attention_mask=torch.tensor(is_token, device=model.device),
            logits_processor=LogitsProcessorList([_Choice(batch, choose, set(end_tokens), max_new_tokens)]),
            max_new_tokens=max_new_tokens,
            eos_token_id=list(end_tokens),
            pad_token_id=pad_token,
            repetition_penalty=1.0,
            **settings,
        )
        report(len(batch))


class _Choice(LogitsProcessor):
    """Chooses one token for each row and excludes all others: greedy decoding then takes the chosen one."""

    def __init__(
        self, rows: Sequence[Row], choose: Choose, end_tokens: set[int], max_new_tokens: int
    ) -> None:
        self._rows = rows
        self._choose = choose
        self._end_tokens = end_tokens
        self._max_new_tokens = max_new_tokens

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return 0 for the chosen token of each row and −∞ for every other, shape (rows, V)."""
        chosen = self._choose(scores, self._rows)
        add_tokens(self._rows, scores, chosen, self._end_tokens, self._max_new_tokens)
        excluded = torch.full_like(scores, -torch.inf)
        return excluded.scatter(-1, chosen[:, None], 0.0)  # type: ignore[return-value]


def _choice(sampling: Sampling | None, repetition_penalty: float) -> Choose:
    def choose(logits: Tensor, rows: Sequence[Row]) -> Tensor:
        if repetition_penalty != 1:
            logits = _penalise(logits, rows, repetition_penalty)
        if sampling is None:
            return logits.argmax(dim=-1)
        return draw_tokens(logits, sampling, [row.generator for row in rows])

    return choose


def _penalise(logits: Tensor, rows: Sequence[Row], penalty: float) -> Tensor:
    occurred = torch.zeros_like(logits, dtype=torch.bool)
    for place, row in enumerate(rows):
        occurred[place, [*row.prompt, *row.tokens]] = True
    return torch.where(occurred, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def _seed_generator(sampling: Sampling, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed((sampling.seed * 1_000_003 + stream) % 2**63)


def draw_tokens(logits: Tensor, sampling: Sampling, generators: Sequence[torch.Generator | None]) -> Tensor:
    """Draw the next token of each row from its nucleus.

    Each row has a random generator of its own, and one number of it is used per token: the draw does not
    depend on what else is in the batch.

    Args:
        logits: Of the next token, shape (rows, V).
        sampling: Temperature and nucleus.
        generators: One per row, on the CPU; None draws from torch's own.

    Returns:
        Token ids, shape (rows,).
    """
    tokens, probabilities = select_nucleus(logits.float() / sampling.temperature, sampling.top_p)
    # (rows, 1): one number in [0, 1) per row, from the generator of that row.
    uniforms = torch.cat([torch.rand(1, 1, generator=generator) for generator in generators])
    # (rows, k): the last column is the probability of the whole nucleus, which may be below 1.
    cumulative = probabilities.cumsum(dim=-1)
    # The first token whose cumulative probability exceeds the scaled number is the drawn one.
    rank = (cumulative <= uniforms.to(cumulative) * cumulative[:, -1:]).sum(dim=-1, keepdim=True)
    # By rounding the number may reach the last sum: then the last token is drawn.
    return tokens.gather(-1, rank.clamp(max=tokens.shape[-1] - 1)).squeeze(-1)


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
        For a `top_p` of 1 all tokens, unsorted.
    """
    if top_p >= 1:
        return torch.arange(logits.shape[-1], device=logits.device).expand_as(logits), logits.softmax(dim=-1)
    size = min(first, logits.shape[-1])
    likeliest = logits.topk(size, dim=-1)  # values and indices, both (rows, size)
    # Normalised over the whole vocabulary, not over the `size` likeliest tokens.
    probabilities = (likeliest.values - logits.logsumexp(dim=-1, keepdim=True)).exp()
    cumulative = probabilities.cumsum(dim=-1)
    if size < logits.shape[-1] and bool((cumulative[:, -1] < top_p).any()):
        return select_nucleus(logits, top_p, first=2 * first)
    # A token belongs to the set if the likelier ones before it do not reach `top_p` by themselves.
    outside = cumulative - probabilities >= top_p
    return likeliest.indices, probabilities.masked_fill(outside, 0.0)


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer: the tokenizer's end of turn, which is trained on, and the model's own."""
    configured = model.generation_config.eos_token_id
    tokens = {tokenizer.eos_token_id}
    tokens.update(configured if isinstance(configured, list) else [configured])
    return sorted(tokens - {None})
