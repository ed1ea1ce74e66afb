"""Training with the hybrid objective: what is trained, with which arguments, and when it stops by itself."""

import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from realignment.collation import Collator
from realignment.fresh import FreshWeights
from realignment.head import Head
from realignment.objective import Example, Objective, epoch_order
from realignment.parameters import TrainingParameters
from realignment.records import RealignmentError
from realignment.reference import KeptReference
from realignment.rows import Layout
from realignment.trainer import RealignTrainer

logger = logging.getLogger(__name__)

HISTORY_COLUMNS = (
    "step", "epoch", "loss", "invert_loss", "punish_loss", "retain_loss", "retain_kl", "learning_rate",
    "grad_norm", "margin", "logratio_preferred", "logratio_dispreferred", "logratio_retained",
)  # fmt: skip


class TrainingError(RealignmentError):
    """The training cannot be set up as configured."""


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """A low-rank adapter on the model's linear layers (Hu et al. 2021, arXiv:2106.09685)."""

    rank: int
    alpha: float
    target_modules: str | tuple[str, ...]
    dropout: float = 0.0


def trainable_model(model: PreTrainedModel, lora: LoraSettings | None, *, seed: int) -> Any:
    """The model with what is trained switched on: a fresh adapter (B = 0, A by the seed), or all of it.

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


class ProgressBar(TrainerCallback):
    """A bar with rate, remaining time and the loss; the log entries themselves go to the history."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Open the bar where an interrupted run left off."""
        self._bar = tqdm(total=state.max_steps, initial=state.global_step, desc="Training", unit="step")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """One step further."""
        self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """Show what matters at a glance."""
        shown = {name: f"{logs[name]:.3g}" for name in ("loss", "margin", "retain_kl") if name in logs}
        self._bar.set_postfix(shown, refresh=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the bar."""
        self._bar.close()


class DriftGuard(TrainerCallback):
    """Stops before the model drifts too far from the reference, and puts the last healthy parameters back.

    A log tells of the parameters before its step, so a copy counts as healthy one log after it was made.
    """

    def __init__(self, max_kl: float) -> None:
        self.max_kl = max_kl
        self.stopped_at: int | None = None
        self._healthy: dict[str, Tensor] = {}
        self._latest: dict[str, Tensor] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Where the first log is already too far, the parameters it began with are put back."""
        self._healthy = self._latest = _copy(_trained(model))

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float], model: Any = None, **_: Any
    ) -> None:
        """Compare the KL on the retained pairs since the last log with the budget."""
        if self.stopped_at is not None or "retain_kl" not in logs:
            return
        trained = _trained(model)
        if logs["retain_kl"] <= self.max_kl:
            self._healthy, self._latest = self._latest, _copy(trained)
            return
        self.stopped_at = state.global_step
        control.should_training_stop = True
        with torch.no_grad():
            for name, value in self._healthy.items():
                trained[name].copy_(value)
        logger.warning(
            "Training stopped at step %d: KL %.3g nats/token on retained pairs is above the limit %.3g. The "
            "last parameters measured below it are kept. Lower `training.learning_rate`, or raise "
            "`loss.kl_weight` or `training.max_kl`.",
            state.global_step,
            logs["retain_kl"],
            self.max_kl,
        )


def _trained(model: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _copy(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def count_steps(examples: int, epochs: float, batch_size: int, accumulation_steps: int) -> int:
    """Optimizer steps of a run on one device."""
    return math.ceil(max(1, round(epochs * examples)) / (batch_size * accumulation_steps))


def training_arguments(
    folder: Path, *, steps: int, device: str, settings: TrainingParameters, seed: int
) -> TrainingArguments:
    """Our settings as arguments of transformers; `settings.trainer` overrides and adds.

    Raises:
        TrainingError: `training.trainer` has a name or value unknown to transformers, or mixes precisions.
    """
    chosen: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.accumulation_steps,
        "num_train_epochs": 1,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": round(settings.warmup_share * steps),
        "max_grad_norm": settings.max_grad_norm,
        "logging_steps": settings.logging_steps,
        "save_steps": settings.checkpoint_steps,
        "save_total_limit": 2,
        "seed": seed,
        "use_cpu": device == "cpu",
        "dataloader_pin_memory": device == "cuda",
        "remove_unused_columns": False,
        "report_to": [],
        "disable_tqdm": True,
    }
    try:
        arguments = TrainingArguments(**(chosen | settings.trainer))
    except (TypeError, ValueError) as error:
        raise TrainingError(
            f"transformers' TrainingArguments does not accept `training.trainer`: {error}. Found: "
            f"{settings.trainer}. Remove or correct the name."
        ) from error
    if arguments.bf16 or arguments.fp16:
        raise TrainingError(
            "`training.trainer` asks for mixed precision (bf16 or fp16), which would leave scores and "
            "references out. Use `training.autocast: true` with `model.dtype: float32`, or "
            "`model.dtype: bfloat16`, with which adapters stay in float32."
        )
    # Where it sees several GPUs, Trainer would wrap the model in `nn.DataParallel` and enlarge the batch.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _check_references(examples: Sequence[Example]) -> None:
    unknown = [e.pair_id for e in examples if e.treatment.is_conflict and not e.reference]
    if unknown:
        raise TrainingError(
            f"{len(unknown)} examples have no reference log-probabilities (first: {unknown[0]}), expected "
            "them for every treatment but KEEP. Score them first (`weighing.score_conflicts`)."
        )


def train(
    model: Any,
    examples: Sequence[Example],
    *,
    objective: Objective,
    arguments: TrainingArguments,
    layout: Layout,
    reference_model: nn.Module | None = None,
    kept_reference: tuple[KeptReference, Head] | None = None,
    fresh: FreshWeights | None = None,
    token_budget: int | None = None,
    epochs: float = 1.0,
    callbacks: Sequence[TrainerCallback] = (),
) -> list[dict[str, float]]:
    """Train in place, from the output folder's last checkpoint if it holds one; one dict per logged step.

    Args:
        model: From `trainable_model`.
        examples: Every one with its weight, and its reference log-probabilities unless its treatment is KEEP.
        objective: The loss.
        arguments: transformers' own; `remove_unused_columns` must be off, and epochs 1 (`epochs` counts).
        layout: How the model's pairs are laid out.
        reference_model: Frozen copy for full fine-tuning; None: the adapters are switched off instead.
        kept_reference: What is kept of the reference on disk, and its output head, instead of either.
        fresh: Takes the weights anew in every step; None: the examples' own.
        token_budget: Tokens of a forward pass; a larger batch is taken in parts.
        epochs: Passes over the examples.
        callbacks: Progress, health checks.

    Raises:
        TrainingError: An example to be trained away from has no reference log-probabilities.
    """
    _check_references(examples)
    order = epoch_order([int(e.treatment) for e in examples], epochs=epochs, seed=arguments.seed)
    trainer = RealignTrainer(
        model=model,
        args=arguments,
        train_dataset=[examples[i] for i in order],
        data_collator=Collator(layout, token_budget, kept_reference[0] if kept_reference else None),
        objective=objective,
        reference_model=reference_model,
        reference_head=kept_reference[1] if kept_reference else None,
        fresh=fresh,
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(arguments.output_dir))
    return [e | {"epoch": e["epoch"] * epochs} for e in trainer.state.log_history if "loss" in e]
