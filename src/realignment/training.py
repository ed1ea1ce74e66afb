"""Training with the hybrid objective: examples → batches → a realigned model. Stands on transformers' public surface only."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from realignment import likelihood, losses
from realignment.likelihood import Rows, lay_out
from realignment.objective import (
    Example,
    Objective,
    Treatment,
    first_responses,
    epoch_order,
    hybrid_loss,
    pair_losses,
)
from realignment.parameters import TrainingParameters
from realignment.records import HealthError, RealignmentError

logger = logging.getLogger(__name__)

HISTORY_COLUMNS = (
    "step", "epoch", "loss", "invert_loss", "punish_loss", "retain_kl", "learning_rate", "grad_norm", "margin",
    "logratio_preferred", "logratio_dispreferred", "logratio_retained",
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
    """The model with what is to be trained switched on: a fresh adapter (B = 0, A from the seed), or every parameter.

    The same seed gives the same A, so impact scores taken now are scores of the parameters that training moves.
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
        return get_peft_model(model, config)


@dataclass(frozen=True, slots=True)
class Collator:
    """Examples → one batch of tensors (a nested dict, so that any accelerator can move it)."""

    pad_id: int
    dtype: torch.dtype

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Lay the examples out as rows; NaN stands for a reference that is not known."""
        rows = lay_out([example.tokens for example in examples], pad_id=self.pad_id, dtype=self.dtype)
        reference = [
            value for e in examples for value in (e.reference or (float("nan"),) * len(e.tokens.responses))
        ]
        return {
            "rows": {name: getattr(rows, name) for name in Rows.__slots__},
            "treatments": torch.tensor([int(example.treatment) for example in examples]),
            "weights": torch.tensor([example.weight for example in examples]),
            "reference": torch.tensor(reference),
        }


class RealignTrainer(Trainer):
    """transformers' Trainer with the hybrid objective; nothing else differs.

    The reference is the model with its adapters switched off, in the same batch; full fine-tuning takes a frozen copy.
    """

    def __init__(
        self, *args: Any, objective: Objective, reference_model: nn.Module | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._objective, self._reference_model = objective, reference_model
        self._metrics: list[dict[str, Tensor]] = []
        # The loss is a mean over the micro-batch: let Trainer divide by the accumulation steps.
        self.model_accepts_loss_kwargs = False

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The examples as they come: `train` has put them in order, for all epochs, so a resumed run meets the same batches."""
        loader = DataLoader(
            self.train_dataset,  # type: ignore[arg-type]
            batch_size=self.args.train_batch_size,
            shuffle=False,
            collate_fn=self.data_collator,
        )
        return self.accelerator.prepare(loader)  # type: ignore[no-any-return]

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> Tensor:
        """The hybrid loss of one batch."""
        rows, treatments = Rows(**inputs["rows"]), inputs["treatments"]
        hidden = likelihood.response_hidden_states(model, rows)
        tokens = likelihood.token_log_probabilities(hidden, likelihood.output_head(model), rows.target)
        logprobs = likelihood.sum_per_response(tokens, rows)
        kept = (treatments == Treatment.KEEP).nonzero()[:, 0]
        retained_kl, kept_reference = self._retained(model, rows, kept, hidden)
        reference = inputs["reference"].to(logprobs.dtype)
        reference = reference.index_copy(0, first_responses(rows)[kept], kept_reference.to(reference.dtype))
        per_pair = pair_losses(logprobs, reference, rows, treatments, self._objective)
        total, terms = hybrid_loss(per_pair, inputs["weights"], treatments, retained_kl, self._objective)
        if not torch.isfinite(total):
            raise HealthError(
                f"The loss is {float(total)} at step {self.state.global_step + 1} ({_show(terms)}). Nothing was saved from "
                "this step. Lower `training.learning_rate`, or use float32 (`model.dtype`)."
            )
        self._record(terms, logprobs.detach() - reference, rows, treatments)
        return total

    def _retained(self, model: nn.Module, rows: Rows, kept: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Mean over the KEEP rows of their token-mean KL, and their log π_ref, shape (K,)."""
        if not len(kept):
            return hidden.new_zeros(()), hidden.new_zeros(0)
        part = rows.select(kept)
        mine = (rows.pair[rows.response][:, None] == kept).any(1)
        reference_hidden, reference_head = self._reference_states(model, part)
        coefficients = 1.0 / (part.length[part.response] * len(kept))
        head = likelihood.output_head(model)
        value = losses.token_kl(hidden[mine], head, reference_hidden, reference_head, coefficients)
        tokens = likelihood.token_log_probabilities(reference_hidden, reference_head, part.target)
        return value, likelihood.sum_per_response(tokens, part)

    @torch.no_grad()
    def _reference_states(self, model: nn.Module, rows: Rows) -> tuple[Tensor, Tensor]:
        if self._reference_model is not None:
            states = likelihood.response_hidden_states(self._reference_model, rows)
            return states, likelihood.output_head(self._reference_model)
        with self.accelerator.unwrap_model(model).disable_adapter():
            return likelihood.response_hidden_states(model, rows), likelihood.output_head(model)

    def _record(self, terms: dict[str, Tensor], logratios: Tensor, rows: Rows, treatments: Tensor) -> None:
        first = first_responses(rows)
        prefer = first[treatments == Treatment.PREFER]
        correct = first[treatments == Treatment.CORRECT]
        suppress = first[treatments == Treatment.SUPPRESS]
        kept = first[treatments == Treatment.KEEP]
        worse = torch.cat([prefer + 1, correct + 1, correct + 2, suppress, suppress + 1])
        means = {
            "margin": logratios[prefer] - logratios[prefer + 1],
            "logratio_preferred": logratios[torch.cat([prefer, correct])],
            "logratio_dispreferred": logratios[worse],
            "logratio_retained": logratios[kept],
        }
        present = {name: values.mean() for name, values in means.items() if len(values)}
        self._metrics.append({name: value.detach() for name, value in (terms | present).items()})

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the means since the last log."""
        names = sorted({name for metrics in self._metrics for name in metrics})
        for name in names:
            values = [metrics[name] for metrics in self._metrics if name in metrics]
            logs[name] = float(torch.stack(values).mean())
        self._metrics.clear()
        super().log(logs, *args, **kwargs)


def _show(terms: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {float(value):.4g}" for name, value in terms.items())


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
    """Stops before the model drifts too far from the reference, and puts the last healthy parameters back."""

    def __init__(self, max_kl: float) -> None:
        self.max_kl = max_kl
        self.stopped_at: int | None = None
        self._healthy: dict[str, Tensor] = {}

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float], model: Any = None, **_: Any
    ) -> None:
        """Compare the KL on the retained pairs since the last log with the budget."""
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if logs.get("retain_kl", 0.0) <= self.max_kl:
            self._healthy = {name: p.detach().to("cpu", copy=True) for name, p in trained.items()}
            return
        self.stopped_at = state.global_step
        control.should_training_stop = True
        with torch.no_grad():
            for name, value in self._healthy.items():
                trained[name].copy_(value)
        logger.warning(
            "Training stopped at step %d: KL %.3g nats/token on retained pairs is above the limit %.3g. The parameters of "
            "the last log below it are kept. Lower `training.learning_rate`, raise `loss.kl_weight` or `training.max_kl`.",
            state.global_step,
            logs["retain_kl"],
            self.max_kl,
        )


def count_steps(examples: int, epochs: float, batch_size: int, accumulation_steps: int) -> int:
    """Optimizer steps of a run on one device."""
    return math.ceil(max(1, round(epochs * examples)) / (batch_size * accumulation_steps))


def training_arguments(
    folder: Path, *, steps: int, device: str, settings: TrainingParameters, seed: int
) -> TrainingArguments:
    """transformers' arguments for our settings; `settings.trainer` overrides and adds.

    Raises:
        TrainingError: A name in `training.trainer` that TrainingArguments does not know, or a value it refuses.
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
        return TrainingArguments(**(chosen | settings.trainer))
    except (TypeError, ValueError) as error:
        raise TrainingError(
            f"`training.trainer` is not accepted by transformers' TrainingArguments: {error}. Found: {settings.trainer}."
        ) from error


def train(
    model: Any,
    examples: Sequence[Example],
    *,
    objective: Objective,
    arguments: TrainingArguments,
    pad_id: int,
    reference_model: nn.Module | None = None,
    epochs: float = 1.0,
    callbacks: Sequence[TrainerCallback] = (),
) -> list[dict[str, float]]:
    """Train in place; where the output folder holds a checkpoint of the same run, from there.

    Args:
        model: From `trainable_model`.
        examples: Every one with its weight, and its reference log-probabilities unless its treatment is KEEP.
        objective: The loss.
        arguments: transformers' own; `remove_unused_columns` must be off, and epochs 1 (`epochs` counts).
        pad_id: Token that fills rows.
        reference_model: Frozen copy for full fine-tuning; None: the adapters are switched off instead.
        epochs: Passes over the examples.
        callbacks: Progress, health checks.

    Returns:
        One dict per logged step.
    """
    order = epoch_order([int(e.treatment) for e in examples], epochs=epochs, seed=arguments.seed)
    trainer = RealignTrainer(
        model=model,
        args=arguments,
        train_dataset=[examples[i] for i in order],
        data_collator=Collator(pad_id, model.dtype),
        objective=objective,
        reference_model=reference_model,
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(arguments.output_dir))
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    return [entry | {"epoch": entry["epoch"] * epochs} for entry in history]
