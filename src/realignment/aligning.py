"""Making a reference model: plain DPO on the old labels, by TRL's own trainer."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from realignment.parameters import AlignParameters, ModelParameters
from realignment.tokenization import chat_messages
from realignment.workbench import load_model


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
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    model, tokenizer = load_model(path, model_parameters)
    lora, folder = parameters.lora, work_folder / "align"
    adapter = None
    if lora is not None:
        targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
        adapter = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=targets,
            task_type="CAUSAL_LM",
        )
    arguments = DPOConfig(
        output_dir=str(folder / "checkpoints"),
        beta=parameters.beta,
        learning_rate=parameters.learning_rate,
        num_train_epochs=parameters.epochs,
        per_device_train_batch_size=parameters.batch_size,
        max_length=parameters.max_length,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=model.device.type == "cpu",
        dataloader_pin_memory=model.device.type == "cuda",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        seed=seed,
    )
    trainer = DPOTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(_conversations(pairs)),
        processing_class=tokenizer,
        peft_config=adapter,
    )
    trainer.train()
    trained = trainer.model.float()
    if lora is not None:
        trained = trained.merge_and_unload()
    shutil.rmtree(folder / "model", ignore_errors=True)
    trained.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    return str(folder / "model"), pd.DataFrame(history)


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
