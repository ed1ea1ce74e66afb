"""Making a reference model: plain DPO on the old labels, by TRL's own trainer."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from realignment.likelihood.tokenization import chat_messages
from realignment.model.loading import load_configured
from realignment.parameters import AlignParameters, LoraParameters
from realignment.parameters.base import ModelParameters


def align(
    pairs: pd.DataFrame,
    path: str,
    model_parameters: ModelParameters,
    parameters: AlignParameters,
    *,
    seed: int,
    work_folder: Path,
) -> tuple[str, pd.DataFrame]:
    """Train with TRL's `DPOTrainer` (Rafailov et al. 2023, arXiv:2305.18290) and save the merged model.

    Args:
        pairs: Cleaned pairs; chosen is preferred, as it was annotated under the old policy.
        path: Folder of the base model.
        model_parameters: How it is loaded.
        parameters: β, learning rate, epochs, adapter.
        seed: Of initialisation and order.
        work_folder: Where the run works.

    Returns:
        Folder of the complete model, to be moved into the catalog, and the training history.
    """
    from datasets import Dataset
    from trl import DPOTrainer

    model, tokenizer = load_configured(path, model_parameters)
    folder = work_folder / "align"
    trainer = DPOTrainer(
        model=model,
        args=_arguments(folder / "checkpoints", parameters, device=model.device.type, seed=seed),
        train_dataset=Dataset.from_list(_conversations(pairs)),
        processing_class=tokenizer,
        peft_config=_adapter(parameters.lora),
    )
    trainer.train()
    # Merged in float32: in bfloat16 a small update would be rounded away against a large weight.
    trained = trainer.model.float()
    _save(trained if parameters.lora is None else trained.merge_and_unload(), tokenizer, folder / "model")
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    return str(folder / "model"), pd.DataFrame(history)


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _arguments(folder: Path, parameters: AlignParameters, *, device: str, seed: int) -> Any:
    from trl import DPOConfig

    return DPOConfig(
        output_dir=str(folder),
        beta=parameters.beta,
        learning_rate=parameters.learning_rate,
        num_train_epochs=parameters.epochs,
        per_device_train_batch_size=parameters.batch_size,
        max_length=parameters.max_length,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=device == "cpu",
        dataloader_pin_memory=device == "cuda",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        seed=seed,
    )


def _adapter(lora: LoraParameters | None) -> Any:
    from peft import LoraConfig

    if lora is None:
        return None
    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )


def _conversations(pairs: pd.DataFrame) -> list[dict[str, Any]]:
    def answer(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    return [
        {
            "prompt": chat_messages(pair["prompt"], pair["messages"]),
            "chosen": answer(pair["chosen"]),
            "rejected": answer(pair["rejected"]),
        }
        for pair in pairs.to_dict("records")
    ]
