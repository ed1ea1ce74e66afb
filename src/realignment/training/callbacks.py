"""Callbacks of a training: the progress bar, and the guard against drift from the reference."""

import logging
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import TrainerCallback

logger = logging.getLogger(__name__)


class ProgressBar(TrainerCallback):
    """Shows rate, remaining time and the loss; the log entries themselves go to the history."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Open the bar where an interrupted run left off."""
        self._bar = tqdm(total=state.max_steps, initial=state.global_step, desc="Training", unit="step")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Advance the bar."""
        self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """Show loss, margin and KL behind the bar."""
        figures = {name: f"{logs[name]:.3g}" for name in ("loss", "margin", "retain_kl") if name in logs}
        self._bar.set_postfix(figures, refresh=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the bar."""
        self._bar.close()


class DriftGuard(TrainerCallback):
    """Stops a run whose KL on retained pairs exceeds a limit, and restores the last healthy parameters.

    A log describes the parameters before its step, so a copy counts as healthy one log after it was made.

    Attributes:
        max_kl: The limit, in nats per token.
        stopped_at: The step in which the run was stopped; None: it was not.
    """

    def __init__(self, max_kl: float) -> None:
        self.max_kl = max_kl
        self.stopped_at: int | None = None
        self._healthy: dict[str, Tensor] = {}
        self._latest: dict[str, Tensor] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Copy the parameters, which are restored if the first log is beyond the limit already."""
        self._healthy = self._latest = _copy(_trained(model))

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float], model: Any = None, **_: Any
    ) -> None:
        """Compare the KL on the retained pairs since the last log with the limit."""
        if self.stopped_at is not None or "retain_kl" not in logs:
            return
        trained = _trained(model)
        if logs["retain_kl"] <= self.max_kl:
            self._healthy = self._latest
            self._latest = _copy(trained)
            return
        self.stopped_at = state.global_step
        control.should_training_stop = True
        with torch.no_grad():
            for name, value in self._healthy.items():
                trained[name].copy_(value)
        logger.warning(
            "Training stopped at step %d: KL %.3g nats/token on retained pairs is above the limit %.3g. The "
            "last parameters measured below it are restored. Lower `training.learning_rate`, or raise "
            "`loss.kl_weight` or `training.max_kl`.",
            state.global_step,
            logs["retain_kl"],
            self.max_kl,
        )


def _trained(model: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _copy(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
