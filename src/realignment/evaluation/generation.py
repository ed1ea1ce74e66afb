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
    repetition_penalty: float = 1.0,
    progress: str | None = None,
) -> list[str]:
    """The model's greedy answer to every chat, in order.

    Args:
        model: In evaluation mode; its device is used.
        tokenizer: The model's own.
        chats: Messages before the answer.
        max_new_tokens: Where an answer is cut at the latest.
        batch_size: Prompts at a time; they are sorted by length, so padding is little.
        repetition_penalty: Divides the logits of tokens that occurred (arXiv:1909.05858); 1: off.
        progress: Label of the progress bar; None: no bar.
    """
    texts = [prompt_text(tokenizer, chat) for chat in chats]
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    answers = [""] * len(texts)
    settings = {
        "max_new_tokens": max_new_tokens,
        "do_sample": False,
        "temperature": None,
        "top_p": None,
        "top_k": None,
        "repetition_penalty": repetition_penalty,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": _end_tokens(model, tokenizer),
    }
    with tqdm(total=len(texts), desc=progress, unit="answer", disable=progress is None) as bar:
        for start in range(0, len(order), batch_size):
            members = order[start : start + batch_size]
            batch = _encode(tokenizer, [texts[i] for i in members], model.device)
            output = model.generate(**batch, **settings)
            for index, ids in zip(members, output[:, batch["input_ids"].shape[1] :], strict=True):
                answers[index] = tokenizer.decode(ids, skip_special_tokens=True).strip()
            bar.update(len(members))
    return answers


def _encode(tokenizer: Any, texts: list[str], device: torch.device) -> dict[str, torch.Tensor]:
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    # By name: some tokenizers also give token types, which a decoder does not know.
    return {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Where an answer ends: at the tokenizer's end of turn, which is trained on, or one the model names."""
    named = model.generation_config.eos_token_id
    ends = named if isinstance(named, list) else [named]
    return sorted({end for end in (*ends, tokenizer.eos_token_id) if end is not None})
