"""Training with the hybrid objective: its arguments, the order of examples, and checkpoints."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PrinterCallback, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from realignment.likelihood.head import Head
from realignment.likelihood.packing import Layout
from realignment.objective.examples import PairKind, Plan, Plans, plan_trace
from realignment.objective.hybrid import Example, Objective, Treatment, count_dispositions
from realignment.objective.order import epoch_order
from realignment.parameters import LossParameters, TrainingParameters
from realignment.records import RealignmentError
from realignment.training.collation import Collator
from realignment.training.online_weights import OnlineWeights
from realignment.training.reference import CachedReference
from realignment.training.trainer import RealignTrainer

HISTORY_COLUMNS = (
    "step", "epoch", "loss", "invert_loss", "punish_loss", "retain_loss", "retain_kl", "learning_rate",
    "grad_norm", "margin", "logratio_preferred", "logratio_dispreferred", "logratio_retained",
)  # fmt: skip


MEASURED_LEARNING_RATE = 1e-3
MEASURED_WIDTH = 576
"""Of SmolLM2-135M, for which the learning rate was chosen on the sample's development prompts."""

WIDTH_EXPONENT = 0.781
LORA_FACTOR = 10


class TrainingError(RealignmentError):
    """The training cannot be set up as configured."""


def build_objective(loss: LossParameters) -> Objective:
    """Return the settings of the hybrid loss that the parameters name."""
    return Objective(
        beta=loss.beta,
        invert=loss.invert,
        suppress=loss.punish,
        punish_weight=loss.punish_weight,
        kl_weight=loss.kl_weight,
        retain_weight=loss.retain_weight,
        anchor_weight=loss.anchor_weight,
        error_rate=0.0 if loss.error_rate == "audited" else loss.error_rate,
        preference_weight=loss.preference_weight,
        reduction=loss.reduction,
    )


def build_plans(loss: LossParameters) -> Plans:
    """Return what becomes of every kind of pair: TRACE's plans, changed where the parameters say so."""
    plans = dict(plan_trace(use_corrections=loss.use_corrections, affirm=loss.retain_weight > 0))
    for name, plan in loss.plans.items():
        if plan is None:
            plans[PairKind(name)] = None
            continue
        ((treatment, columns),) = plan.items()
        plans[PairKind(name)] = Plan(Treatment[treatment.upper()], tuple(columns))
    return plans


def count_steps(examples: int, epochs: float, batch_size: int, accumulation_steps: int) -> int:
    """Return the number of optimizer steps of a run on one device."""
    return math.ceil(max(1, round(epochs * examples)) / (batch_size * accumulation_steps))


def choose_learning_rate(settings: TrainingParameters, width: int) -> float:
    """Return the learning rate that is configured, or for ``auto`` one by the model's width.

    1e-3 · (576 / width)^0.781 for an adapter, a tenth of it where every parameter is trained: the scaling
    with width and the factor of ten are those of Schulman et al. 2025, "LoRA Without Regret" (as in
    tinker-cookbook's `hyperparam_utils`, for Llama), through our own measurement at width 576.

    Args:
        settings: Ours.
        width: Size of the model's hidden states.

    Returns:
        The learning rate at the schedule's peak.
    """
    if settings.learning_rate != "auto":
        return settings.learning_rate
    rate = MEASURED_LEARNING_RATE * math.pow(MEASURED_WIDTH / width, WIDTH_EXPONENT)
    return rate if settings.lora is not None else rate / LORA_FACTOR


def training_arguments(
    folder: Path, *, steps: int, device: str, settings: TrainingParameters, seed: int
) -> TrainingArguments:
    """Translate our settings into arguments of transformers; `settings.trainer` overrides and adds.

    Args:
        folder: Folder of the checkpoints.
        steps: Optimizer steps of the run, of which a share is warm-up.
        device: Type of the device.
        settings: Ours.
        seed: Seed of dropout and order.

    Returns:
        Arguments for one epoch, in which `train` has all of its epochs.

    Raises:
        TrainingError: `training.trainer` has a name or value unknown to transformers, mixes precisions, or
            switches on reentrant checkpoints.
    """
    ours: dict[str, Any] = {
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
        arguments = TrainingArguments(**(ours | settings.trainer))
    except (TypeError, ValueError) as error:
        raise TrainingError(
            f"transformers' TrainingArguments does not accept `training.trainer`: {error}. Found: "
            f"{settings.trainer}. Remove or correct the name."
        ) from error
    if arguments.bf16 or arguments.fp16:
        raise TrainingError(
            "`training.trainer` switches on mixed precision (bf16 or fp16), which scores and references "
            "would not have. Use `training.autocast: true` with `model.dtype: float32`, or "
            "`model.dtype: bfloat16`, with which adapters stay in float32."
        )
    if (arguments.activation_checkpointing_kwargs or {}).get("use_reentrant"):
        raise TrainingError(
            "`training.trainer` switches on activation checkpointing with `use_reentrant: true`, through "
            "which the scores get no gradient of an adapter, so that all weights would be zero. Leave "
            "`use_reentrant` out: the same layers are computed again without it."
        )
    # Where it sees several GPUs, Trainer would wrap the model in `nn.DataParallel` and enlarge the batch.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def checkpoint_activations(model: Any, settings: TrainingParameters) -> None:
    """Switch activation checkpointing on, if `settings.trainer` does, for scores, references and training.

    Trainer would switch it on in its own `train` alone, after the impact scores.

    Args:
        model: From `model.adapters.make_trainable`.
        settings: Its `trainer` counts, by transformers' names.

    Raises:
        TrainingError: See `training_arguments`.
    """
    arguments = training_arguments(Path(), steps=1, device=model.device.type, settings=settings, seed=0)
    if arguments.activation_checkpointing:
        options = {"use_reentrant": False} | (arguments.activation_checkpointing_kwargs or {})
        every = options.pop("every_n_layers", 1)
        offload = options.pop("offload", False)
        model.activation_checkpointing_enable(options, every_n_layers=every, offload=offload)
        # Its hook on the embedding is for reentrant checkpoints, and forward-mode derivatives fail at it.
        model.disable_input_require_grads()


def _check_references(examples: Sequence[Example]) -> None:
    """Refuse conflicts whose log-ratios could not be computed."""
    unknown = [e.pair_id for e in examples if e.treatment.is_conflict and not e.reference]
    if unknown:
        raise TrainingError(
            f"{len(unknown)} examples have no reference log-probabilities (first: {unknown[0]}), expected "
            "them for every treatment but KEEP. Score them first (`impact.scoring.score_conflicts`)."
        )


def train(
    model: Any,
    examples: Sequence[Example],
    *,
    objective: Objective,
    arguments: TrainingArguments,
    layout: Layout,
    reference_model: nn.Module | None = None,
    cached_reference: tuple[CachedReference, Head] | None = None,
    online_weights: OnlineWeights | None = None,
    token_budget: int | None = None,
    epochs: float = 1.0,
    callbacks: Sequence[TrainerCallback] = (),
) -> list[dict[str, float]]:
    """Train in place, from the output folder's last checkpoint if it holds one.

    Args:
        model: From `model.adapters.make_trainable`, and with it `checkpoint_activations`.
        examples: Every one with its weight, and its reference log-probabilities unless its treatment is KEEP.
        objective: The loss.
        arguments: From `training_arguments`.
        layout: How the model's pairs are packed.
        reference_model: Frozen copy for full fine-tuning; None: the adapters are switched off instead.
        cached_reference: The reference on disk and its output head, instead of either.
        online_weights: Weights of conflicts in every step; None: the examples' own.
        token_budget: Tokens of a forward pass; a larger batch is taken in parts.
        epochs: Passes over the examples.
        callbacks: Progress, health checks.

    Returns:
        One dict per logged step, with the columns of `HISTORY_COLUMNS`.

    Raises:
        TrainingError: An example to be trained away from has no reference log-probabilities.
    """
    _check_references(examples)
    # The model has it on already (`checkpoint_activations`), or not at all.
    arguments.activation_checkpointing = arguments.gradient_checkpointing = False
    order = epoch_order([int(e.treatment) for e in examples], epochs=epochs, seed=arguments.seed)
    cache, reference_head = cached_reference or (None, None)
    treatments = torch.tensor([int(e.treatment) for e in examples])
    mix = tuple((count_dispositions(treatments) / len(examples)).tolist())
    collator = Collator(layout, token_budget, cache, fixed_weights=online_weights is None, mix=mix)
    trainer = RealignTrainer(
        model=model,
        args=arguments,
        train_dataset=[examples[i] for i in order],
        data_collator=collator,
        objective=objective,
        reference_model=reference_model,
        reference_head=reference_head,
        online_weights=online_weights,
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(arguments.output_dir))
    # Trainer counts one epoch over a data set that holds all of ours.
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    return [entry | {"epoch": entry["epoch"] * epochs} for entry in entries]
