"""Make a model trainable, in whole or by a LoRA adapter, and save what was trained as a complete model."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from realignment.model.loading import load_model
from realignment.parameters import LoraParameters


def make_trainable(model: PreTrainedModel, lora: LoraParameters | None, *, seed: int) -> Any:
    """Add a fresh low-rank adapter to a model, or make all of its parameters trainable.

    The adapter is on the model's linear layers (Hu et al. 2021, arXiv:2106.09685). Its B is 0 and its A is
    drawn by the seed. The same seed gives the same A, so impact scores taken now are of the parameters that
    training moves.

    Args:
        model: Changed in place.
        lora: Rank, scale and layers of the adapter; None trains every parameter.
        seed: Of the draw of A. The global random state is left as it was.

    Returns:
        The model itself, or the PEFT model around it.
    """
    if lora is None:
        return model.requires_grad_(True)
    from peft import get_peft_model

    with torch.random.fork_rng(), warnings.catch_warnings():
        torch.manual_seed(seed)
        # PEFT reads an attribute whose name transformers has deprecated.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        return get_peft_model(model, build_lora_config(lora))


def build_lora_config(lora: LoraParameters) -> Any:
    """Return PEFT's configuration of an adapter on a causal language model."""
    from peft import LoraConfig, TaskType

    # PEFT takes a text as a pattern (or `all-linear`), and a list as names of layers.
    layers = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=layers,
        task_type=TaskType.CAUSAL_LM,
    )


def save_trained_model(model: Any, tokenizer: Any, folder: Path, *, source: str) -> None:
    """Save what was trained as a complete model with its tokenizer; an adapter also in ``adapter/``.

    Args:
        model: From `make_trainable`; an adapter is merged in place.
        tokenizer: Of the model.
        folder: Replaced if it is there.
        source: Where the model was loaded from.
    """
    shutil.rmtree(folder, ignore_errors=True)
    if hasattr(model, "merge_and_unload"):
        model.save_pretrained(folder / "adapter")
        if getattr(model.get_base_model(), "is_quantized", False):
            # QLoRA trained the adapter on rounded weights. Merge it into the weights as they were before
            # rounding, which have to be loaded again.
            from peft import PeftModel

            base, _ = load_model(source, dtype="float32", device="cpu")
            model = PeftModel.from_pretrained(base, str(folder / "adapter"))
        # Merge in float32: in bfloat16 a small update would be rounded away against a large weight.
        model = model.float().merge_and_unload()
    model.float().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
