"""TRL's DPO trainer, on the same token ids as our own."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from datasets import Dataset
from harness import Result
from ours import collect_gradients
from peers import BETA
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

from realignment.likelihood.tokenization import TokenizedPair


def build_trainer(
    model: Any,
    pairs: Sequence[TokenizedPair],
    *,
    precomputed: bool,
    checkpointing: bool = False,
    reference_model: nn.Module | None = None,
    device: str = "cpu",
) -> DPOTrainer:
    """Build TRL's DPO trainer on the pairs, every first response preferred; all pairs are one batch.

    Args:
        model: The policy, at the reference; change its parameters afterwards for another policy.
        pairs: The pairs to train on.
        precomputed: Compute reference log-probabilities once, now, instead of in every step (TRL's default).
        checkpointing: Use activation checkpointing (TRL's default is on).
        reference_model: Needed for full fine-tuning; with an adapter TRL disables the adapter instead.
        device: Where to train.
    """
    arguments = DPOConfig(
        tempfile.gettempdir(),
        per_device_train_batch_size=len(pairs),
        precompute_ref_log_probs=precomputed,
        gradient_checkpointing=checkpointing,
        beta=BETA,
        max_length=None,
        bf16=device == "cuda",
        use_cpu=device == "cpu",
        dataloader_pin_memory=False,
        report_to="none",
        save_strategy="no",
        max_steps=1,
    )
    trainer = DPOTrainer(
        model=model,
        ref_model=reference_model,
        args=arguments,
        train_dataset=_as_text(pairs),
        processing_class=word_tokenizer(model.config.vocab_size),
    )
    trainer.current_gradient_accumulation_steps = 1
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    return trainer


def word_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Build a tokenizer for which token i is the word `w{i}`."""
    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def _as_text(pairs: Sequence[TokenizedPair]) -> Dataset:
    def text(ids: list[int]) -> str:
        return " ".join("</s>" if i == 2 else f"w{i}" for i in ids)

    return Dataset.from_list(
        [
            {"prompt": text(p.prompt) + " ", "chosen": text(p.responses[0]), "rejected": text(p.responses[1])}
            for p in pairs
        ]
    )


@contextmanager
def _only_responses() -> Iterator[None]:
    """Make TRL compute the head for response tokens alone, as it does only on devices with Triton."""
    with mock.patch("trl.trainer.utils._use_triton", return_value=True):
        yield


def list_rows(trainer: DPOTrainer) -> list[dict[str, Any]]:
    """Return all pairs as TRL's collator takes them."""
    kept = ("prompt_ids", "chosen_ids", "rejected_ids", "ref_chosen_logps", "ref_rejected_logps")
    return [{name: row[name] for name in kept if name in row} for row in trainer.train_dataset]


def step(trainer: DPOTrainer, rows: list[dict[str, Any]], *, only_responses: bool = False) -> Result:
    """Run one training step, from tokens to gradients."""
    trainer.model.zero_grad()
    with _only_responses() if only_responses else nullcontext():
        loss = trainer.training_step(trainer.model, trainer.data_collator(rows))
    return {"loss": [loss], "gradient": collect_gradients(trainer.model)}


def compute_references(
    trainer: DPOTrainer, rows: list[dict[str, Any]], *, batch_size: int = 8, only_responses: bool = False
) -> Result:
    """Compute reference log-probabilities of all pairs, chosen then rejected; TRL's default batch is 8."""
    parts = []
    with _only_responses() if only_responses else nullcontext():
        for start in range(0, len(rows), batch_size):
            batch = trainer.data_collator(rows[start : start + batch_size])
            on_device = {name: value.to(trainer.model.device) for name, value in batch.items()}
            parts.append(torch.stack(trainer.compute_ref_log_probs(trainer.model, on_device), 1))
    return {"references": [torch.cat(parts).flatten()]}
