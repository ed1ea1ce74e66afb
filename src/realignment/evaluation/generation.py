"""Greedy answers of a model, in batches of prompts of similar length."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from realignment.tokenization import prompt_text

logger = logging.getLogger(__name__)


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chats: Sequence[list[dict[str, str]]],
    *,
    max_new_tokens: int,
    batch_size: int,
    progress: str | None = None,
) -> list[str]:
    """The model's greedy answer to every chat, in order.

    Args:
        model: In evaluation mode; its device is used.
        tokenizer: The model's own.
        chats: Messages before the answer.
        max_new_tokens: Where an answer is cut at the latest.
        batch_size: Prompts at a time; they are sorted by length, so padding is little.
        progress: Label of the progress bar; None: no bar.
    """
    texts = [prompt_text(tokenizer, chat) for chat in chats]
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    answers = [""] * len(texts)
    with tqdm(total=len(texts), desc=progress, unit="answer", disable=progress is None) as bar:
        for start in range(0, len(order), batch_size):
            members = order[start : start + batch_size]
            for index, answer in zip(
                members, _answer(model, tokenizer, [texts[i] for i in members], max_new_tokens), strict=True
            ):
                answers[index] = answer
            bar.update(len(members))
    return answers


def _answer(model: Any, tokenizer: Any, texts: list[str], max_new_tokens: int) -> list[str]:
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    # By name: some tokenizers also give token types, which a decoder does not know.
    ids, mask = (batch[name].to(model.device) for name in ("input_ids", "attention_mask"))
    output = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=_end_tokens(model, tokenizer),
    )
    new = output[:, ids.shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Where an answer ends: at the tokenizer's end of turn, which is trained on, or one the model names."""
    named = model.generation_config.eos_token_id
    ends = named if isinstance(named, list) else [named]
    return sorted({end for end in (*ends, tokenizer.eos_token_id) if end is not None})
