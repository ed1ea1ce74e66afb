"""Adapters: switched on before training, merged into the weights afterwards."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from realignment.model.loading import load
from realignment.parameters import LoraParameters


def trainable_model(model: PreTrainedModel, lora: LoraParameters | None, *, seed: int) -> Any:
    """The model with what is trained switched on: a fresh adapter (B = 0, A by the seed), or all of it.

    The adapter is low-rank, on the model's linear layers (Hu et al. 2021, arXiv:2106.09685).

    The same seed gives the same A, so impact scores taken now are of the parameters that training moves.
    """
    if lora is None:
        return model.requires_grad_(True)
    from peft import LoraConfig, TaskType, get_peft_model

    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=targets,
            task_type=TaskType.CAUSAL_LM,
        )
        with warnings.catch_warnings():
            # PEFT asks by a name that transformers has deprecated.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            return get_peft_model(model, config)


def save_trained(model: Any, tokenizer: Any, folder: Path, *, source: str) -> None:
    """Save what was trained as a complete model with its tokenizer; an adapter also in ``adapter/``.

    Args:
        model: From `trainable_model`; an adapter is merged in place.
        tokenizer: Of the model.
        folder: Replaced if it is there.
        source: Where the model was loaded from.
    """
    shutil.rmtree(folder, ignore_errors=True)
    if hasattr(model, "merge_and_unload"):
        model.save_pretrained(folder / "adapter")
        if getattr(model.get_base_model(), "is_quantized", False):
            # What was trained is the adapter; it is merged into the weights as they were, not rounded.
            from peft import PeftModel

            whole, _ = load(source, dtype="float32", device="cpu")
            model = PeftModel.from_pretrained(whole, str(folder / "adapter"))
        # Merged in float32: in bfloat16 a small update would be rounded away against a large weight.
        model = model.float().merge_and_unload()
    model.float().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
