"""Train a reference model by plain DPO on the old labels, with TRL's own trainer."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from realignment.likelihood.tokenization import chat_messages
from realignment.model.loading import load_configured_model
from realignment.parameters import AlignParameters
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
        pairs: Cleaned pairs to train on; chosen is preferred, as it was annotated under the old policy.
        path: Folder of the base model.
        model_parameters: Precision and device of the base model.
        parameters: β, learning rate, epochs, adapter.
        seed: Of initialisation and order.
        work_folder: Folder for checkpoints and the finished model.

    Returns:
        Folder of the complete model, to be moved into the catalog, and the training history.
    """
    from datasets import Dataset
    from trl import DPOTrainer

    from realignment.model.adapters import build_lora_config

    model, tokenizer = load_configured_model(path, model_parameters)
    folder = work_folder / "align"
    trainer = DPOTrainer(
        model=model,
        args=_training_arguments(folder / "checkpoints", parameters, device=model.device.type, seed=seed),
        train_dataset=Dataset.from_list(_conversations(pairs)),
        processing_class=tokenizer,
        peft_config=build_lora_config(parameters.lora) if parameters.lora is not None else None,
    )
    trainer.train()
    # Merge in float32: in bfloat16 a small update would be rounded away against a large weight.
    trained = trainer.model.float()
    if parameters.lora is not None:
        trained = trained.merge_and_unload()
    _save(trained, tokenizer, folder / "model")
    # The last entry of TRL's log sums the whole run up and has no loss of a step.
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    return str(folder / "model"), pd.DataFrame(history)


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _training_arguments(folder: Path, parameters: AlignParameters, *, device: str, seed: int) -> Any:
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


def _conversations(pairs: pd.DataFrame) -> list[dict[str, Any]]:
    """The pairs in TRL's conversational format: messages of prompt, chosen and rejected."""

    def assistant(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    return [
        {
            "prompt": chat_messages(pair["prompt"], pair["messages"]),
            "chosen": assistant(pair["chosen"]),
            "rejected": assistant(pair["rejected"]),
        }
        for pair in pairs.to_dict("records")
    ]
