"""The trainer: a batch of examples → the hybrid loss. Stands on transformers' public surface only."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer

from realignment.impact.ghost import Gradient, LayerPasses, RecordedPasses
from realignment.likelihood.backbone import causal_model, head_name, output_head, scoring_mode
from realignment.likelihood.divergence import Reference, ReferenceStates
from realignment.likelihood.head import Head
from realignment.likelihood.log_probs import response_hidden_states, sum_per_response
from realignment.likelihood.packing import Rows
from realignment.likelihood.tiled import head_gradient
from realignment.objective.hybrid import (
    Objective,
    hybrid_loss,
    loss_coefficients,
    pair_losses,
)
from realignment.records import HealthError
from realignment.training.collation import Part
from realignment.training.figures import Figures
from realignment.training.forward import ForwardPass, forward_policy, retained_kl
from realignment.training.online_weights import OnlineWeights, OnlineWeightsCallback
from realignment.training.reference import build_reference


class RealignTrainer(Trainer):
    """transformers' Trainer with the hybrid objective.

    It differs in four methods:

    * `get_train_dataloader` does not shuffle: the data set is in the order of all epochs, with the treatments
      mixed in every batch, and a resumed run meets the same batches.
    * `training_step` takes a batch in parts, each with its own backward, so that memory is that of the
      largest part. With online weights it also forms the weighted gradient of conflicts itself, from one
      backward that serves scores and gradient.
    * `compute_loss` is the hybrid loss, and records its terms.
    * `log` adds the means of these terms to the logs.

    Optimizer, schedule, accumulation, clipping and checkpoints are Trainer's own.

    The reference is the model with its adapters switched off, over the same rows, or the collator's cache, or
    (full fine-tuning) a frozen copy.

    Args:
        *args: Trainer's own.
        objective: The hybrid loss.
        reference_model: Frozen copy of the model; None: its adapters are switched off, or there is a cache.
        reference_head: Output head of a cached reference; None: the model's.
        online_weights: Weights of conflicts in every step; None: the examples' own.
        **kwargs: Trainer's own.
    """

    def __init__(
        self,
        *args: Any,
        objective: Objective,
        reference_model: nn.Module | None = None,
        reference_head: Head | None = None,
        online_weights: OnlineWeights | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._objective = objective
        self._reference_model = reference_model
        self._reference_head = reference_head
        self._online_weights = online_weights
        if online_weights is not None:
            self.add_callback(OnlineWeightsCallback(online_weights))
        self._figures = Figures()
        # The loss is a mean over the batch: there are no labels for Trainer to count.
        self.model_accepts_loss_kwargs = False
        # Batches of an optimizer step, which Trainer sets anew before each: the last one may have fewer.
        self.current_gradient_accumulation_steps = self.args.gradient_accumulation_steps

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the examples in the order of `train`, all epochs at once."""
        options = ("num_workers", "pin_memory", "persistent_workers", "prefetch_factor")
        loader = DataLoader(
            self.train_dataset,
            batch_size=self.args.train_batch_size,
            shuffle=False,
            collate_fn=self.data_collator,
            **{name: getattr(self.args, f"dataloader_{name}") for name in options},
        )
        return self.accelerator.prepare(loader)  # type: ignore[no-any-return]

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> Tensor:
        """Run forward and backward of one batch, part by part.

        Args:
            model: The policy, as Trainer wraps it.
            inputs: From `Collator`.

        Returns:
            The batch's loss, detached, divided by the batches of the optimizer step.
        """
        model.train()
        inputs = self._prepare_inputs(inputs)
        steps = self.current_gradient_accumulation_steps
        losses = []
        if self._online_weights is not None:
            self._online_weights.renew_gold_gradient(model, self.state.global_step)
        for part in inputs["parts"]:
            if self._online_weights is not None and not part["is_retained"]:
                losses.append(self._online_weights_step(model, part, self._online_weights) / steps)
                continue
            loss = self.compute_loss(model, {"parts": [part]}) / steps
            self.accelerator.backward(loss)
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> Tensor:
        """Compute the hybrid loss of one batch with the examples' own weights.

        Args:
            model: The policy, as Trainer wraps it.
            inputs: From `Collator`.

        Returns:
            A scalar with its graph.
        """
        return torch.stack([self._part_loss(model, part) for part in inputs["parts"]]).sum()

    def _part_loss(self, model: nn.Module, part: Part) -> Tensor:
        forward_pass = forward_policy(model, part, self._reference(model, part))
        logprobs = sum_per_response(forward_pass.logprobs, forward_pass.rows)  # (R,)
        per_pair = self._pair_losses(logprobs, forward_pass, part)  # (P,)
        return self._combine(per_pair, part["weights"], logprobs.detach(), forward_pass, part)

    def _pair_losses(self, logprobs: Tensor, forward_pass: ForwardPass, part: Part) -> Tensor:
        """ℓ_i of every pair, shape (P,)."""
        rates = part["error_rates"].to(logprobs)
        return pair_losses(
            logprobs, forward_pass.reference, forward_pass.rows, part["treatments"], self._objective, rates
        )

    def _combine(
        self, per_pair: Tensor, weights: Tensor, logprobs: Tensor, forward_pass: ForwardPass, part: Part
    ) -> Tensor:
        """The part's hybrid loss, checked and recorded."""
        treatments = part["treatments"]
        kl = retained_kl(forward_pass, part)
        total, terms = hybrid_loss(per_pair, weights, treatments, kl, self._objective, part["counts"])
        if not torch.isfinite(total):
            raise HealthError(
                f"The loss is {float(total.detach())} at step {self.state.global_step + 1} "
                f"({_format_terms(terms)}), expected a finite number. Nothing was saved from this step. "
                "Lower `training.learning_rate`, or use float32 (`model.dtype`)."
            )
        logratios = logprobs - forward_pass.reference
        rows = forward_pass.rows
        self._figures.record(terms, logratios, rows.first, rows.pair, treatments, part["shares"])
        return total

    def _online_weights_step(self, model: nn.Module, part: Part, online_weights: OnlineWeights) -> Tensor:
        """Run forward and backward of conflicts, weighted at the present θ.

        One backward of Σ_i ℓ_i records what every token adds to the gradient. From that follow first w̃, then
        the gradient with each ℓ_i counted w̃_i times.
        """
        trained = self.accelerator.unwrap_model(model)
        head = output_head(model)
        rows = Rows(**part["rows"])
        passes = RecordedPasses()
        # Forward and backward, while (x, δ) of every trained layer are recorded instead of weight gradients.
        with LayerPasses(trained, rows.shape, passes):
            forward_pass = forward_policy(model, part, None)
            # The losses' graph begins at the tokens' log-probabilities, (N,): their slopes are needed by
            # themselves, for the head, and the model's backward goes on from them.
            tokens = forward_pass.logprobs.detach().requires_grad_()
            logprobs = sum_per_response(tokens, rows)  # (R,)
            per_pair = self._pair_losses(logprobs, forward_pass, part)  # (P,)
            (slopes,) = torch.autograd.grad(per_pair.sum(), tokens)  # (N,)
            forward_pass.logprobs.backward(slopes)
        hidden = forward_pass.hidden.detach()  # (N, d)
        # s_i = ⟨g_J, ∇ℓ_i⟩ from the recorded passes, then w̃_i; both (P,).
        scores = online_weights.scores(trained, passes, rows, hidden, head, slopes)
        weights = online_weights.normalize(scores, part["treatments"])
        # How often ℓ_i counts in the batch's loss, (P,): 1/N of its disposition times w̃_i.
        coefficients = loss_coefficients(part["treatments"], self._objective, part["counts"])
        multipliers = (coefficients * weights).to(slopes.dtype)
        # Σ_t m_t δ_t x_tᵀ layer by layer, m spread from pairs over places, (B, L).
        gradients = passes.weighted_gradients(multipliers[rows.owner])
        trained_head = head_name(trained, head) if head.weight.requires_grad else None
        if trained_head is not None:
            # The head is applied outside its module and has no layer pass; a tied embedding has one besides.
            per_token = slopes * multipliers[rows.pair[rows.response]]  # (N,)
            gradient = head_gradient(hidden, head, rows.target, per_token)  # (V, d)
            if trained_head in gradients:
                gradient = gradients[trained_head] + gradient
            gradients[trained_head] = gradient
        _accumulate(trained, gradients, 1 / self.current_gradient_accumulation_steps)
        return self._combine(per_pair.detach(), weights, logprobs.detach(), forward_pass, part)

    @torch.no_grad()
    def _reference(self, model: nn.Module, part: Part) -> Reference | None:
        """The reference at the retained pairs' tokens, over the policy's own rows; None of conflicts."""
        if not part["is_retained"]:
            return None
        if part["cached_reference"]:
            head = self._reference_head or output_head(model)
            return build_reference(part["cached_reference"], head, causal_model(model).dtype)
        rows = Rows(**part["rows"])
        if self._reference_model is not None:
            with scoring_mode(self._reference_model):
                states = response_hidden_states(self._reference_model, rows)
            return ReferenceStates(states, output_head(self._reference_model))
        with scoring_mode(model), self.accelerator.unwrap_model(model).disable_adapter():
            states = response_hidden_states(model, rows)
        return ReferenceStates(states, output_head(model).detach())

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the means since the last log.

        Args:
            logs: Trainer's figures; ours are added to them.
            *args: Trainer's own.
            **kwargs: Trainer's own.
        """
        logs.update(self._figures.pop_means())
        super().log(logs, *args, **kwargs)


def _accumulate(model: nn.Module, gradients: Gradient, scale: float) -> None:
    """Add scaled gradients to the parameters', as a backward would."""
    for name, parameter in model.named_parameters():
        if name in gradients:
            gradient = gradients[name].to(parameter.dtype) * scale
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def _format_terms(terms: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in terms.items())
