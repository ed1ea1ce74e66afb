"""The trainer: a batch of examples → the hybrid loss. Stands on transformers' public surface only."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer

from realignment.impact.ghost import Gradient, KeptPasses, LayerPasses
from realignment.likelihood.backbone import causal_model, head_name, output_head, scoring_mode
from realignment.likelihood.divergence import Reference, ReferenceStates
from realignment.likelihood.head import Head
from realignment.likelihood.log_probs import response_hidden_states, sum_per_response
from realignment.likelihood.packing import Rows
from realignment.likelihood.tiled import head_gradient
from realignment.objective.hybrid import Objective, Treatment, hybrid_loss, is_retained, pair_losses, shares
from realignment.records import HealthError
from realignment.training.collation import Part
from realignment.training.forward import Outlook, look, retained_kl
from realignment.training.online_weights import FreshWeights, FreshWeightsKeeper
from realignment.training.reference import as_reference


class RealignTrainer(Trainer):
    """transformers' Trainer with the hybrid objective; nothing else differs.

    The reference is the model with its adapters switched off, in the same batch, or what the collator has of
    it on disk, or (full fine-tuning) a frozen copy.
    """

    def __init__(
        self,
        *args: Any,
        objective: Objective,
        reference_model: nn.Module | None = None,
        reference_head: Head | None = None,
        fresh: FreshWeights | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._objective, self._fresh = objective, fresh
        self._reference_model, self._reference_head = reference_model, reference_head
        if fresh is not None:
            self.add_callback(FreshWeightsKeeper(fresh))
        self._sums: dict[str, list[tuple[Tensor, Tensor]]] = {}
        # The loss is a mean over the batch: there are no labels for Trainer to count.
        self.model_accepts_loss_kwargs = False
        # Batches of an optimizer step, which Trainer sets anew before each: the last one may have fewer.
        self.current_gradient_accumulation_steps = self.args.gradient_accumulation_steps

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The examples in the order of `train`, all epochs at once: a resumed run meets the same batches."""
        asked = ("num_workers", "pin_memory", "persistent_workers", "prefetch_factor")
        loader = DataLoader(
            self.train_dataset,
            batch_size=self.args.train_batch_size,
            shuffle=False,
            collate_fn=self.data_collator,
            **{name: getattr(self.args, f"dataloader_{name}") for name in asked},
        )
        return self.accelerator.prepare(loader)  # type: ignore[no-any-return]

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> Tensor:
        """One batch, forward and backward part by part: memory is that of the largest part."""
        model.train()
        inputs = self._prepare_inputs(inputs)
        steps = self.current_gradient_accumulation_steps
        losses = []
        if self._fresh is not None:
            self._fresh.renew(model, self.state.global_step)
        for part in inputs["parts"]:
            if self._fresh is not None and not part["is_retained"]:
                losses.append(self._fresh_step(model, part, self._fresh) / steps)
                continue
            loss = self.compute_loss(model, {"parts": [part]}) / steps
            self.accelerator.backward(loss)
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> Tensor:
        """The hybrid loss of one batch."""
        return torch.stack([self._loss(model, part) for part in inputs["parts"]]).sum()

    def _loss(self, model: nn.Module, part: Part) -> Tensor:
        outlook = look(model, part, self._reference(model, part))
        logprobs = sum_per_response(outlook.logprobs, outlook.rows)
        per_pair = self._pair_losses(logprobs, outlook, part)
        return self._combine(per_pair, part["weights"], logprobs.detach(), outlook, part)

    def _pair_losses(self, logprobs: Tensor, outlook: Outlook, part: Part) -> Tensor:
        rates = part["error_rates"].to(logprobs)
        return pair_losses(
            logprobs, outlook.reference, outlook.rows, part["treatments"], self._objective, rates
        )

    def _combine(
        self, per_pair: Tensor, weights: Tensor, logprobs: Tensor, outlook: Outlook, part: Part
    ) -> Tensor:
        """The hybrid loss, checked and recorded."""
        treatments, kl = part["treatments"], retained_kl(outlook, part)
        total, terms = hybrid_loss(per_pair, weights, treatments, kl, self._objective, part["counts"])
        if not torch.isfinite(total):
            raise HealthError(
                f"The loss is {float(total.detach())} at step {self.state.global_step + 1} ({_show(terms)}), "
                "expected a finite number. Nothing was saved from this step. Lower `training.learning_rate`, "
                "or use float32 (`model.dtype`)."
            )
        self._record(terms, logprobs - outlook.reference, outlook.rows, treatments, part["shares"])
        return total

    def _fresh_step(self, model: nn.Module, part: Part, fresh: FreshWeights) -> Tensor:
        """Forward and backward of conflicts, weighted at the present θ.

        One backward of Σ_i ℓ_i keeps what every token adds to the gradient. From that follow first w̃, then
        the gradient with each ℓ_i counted w̃_i times.
        """
        treatments, kept = part["treatments"], KeptPasses()
        trained, head = self.accelerator.unwrap_model(model), output_head(model)
        head_is_trained = head.weight.requires_grad
        rows = Rows(**part["rows"])
        with LayerPasses(trained, (rows.input_ids.shape[0], rows.input_ids.shape[1]), kept):
            outlook = look(model, part, None)
            tokens = outlook.logprobs.detach().requires_grad_()
            logprobs = sum_per_response(tokens, rows)
            per_pair = self._pair_losses(logprobs, outlook, part)
            (slopes,) = torch.autograd.grad(per_pair.sum(), tokens)
            outlook.logprobs.backward(slopes)
        hidden = outlook.hidden.detach()
        weights = fresh.weigh(fresh.scores(trained, kept, rows, hidden, head, slopes), treatments)
        multipliers = (shares(treatments, self._objective, part["counts"]) * weights).to(slopes.dtype)
        gradients = kept.weighted_gradients(multipliers[rows.owner])
        if head_is_trained and (name := head_name(trained, head)) is not None:
            per_token = slopes * multipliers[rows.pair[rows.response]]
            head_gradients = head_gradient(hidden, head, rows.target, per_token)
            gradients[name] = gradients[name] + head_gradients if name in gradients else head_gradients
        _accumulate(trained, gradients, 1 / self.current_gradient_accumulation_steps)
        return self._combine(per_pair.detach(), weights, logprobs.detach(), outlook, part)

    @torch.no_grad()
    def _reference(self, model: nn.Module, part: Part) -> Reference | None:
        """The reference at the retained pairs' tokens, over the policy's own rows; None of conflicts."""
        if not part["is_retained"]:
            return None
        if part["kept"]:
            head = self._reference_head or output_head(model)
            return as_reference(part["kept"], head, causal_model(model).dtype)
        rows = Rows(**part["rows"])
        if self._reference_model is not None:
            with scoring_mode(self._reference_model):
                states = response_hidden_states(self._reference_model, rows)
            return ReferenceStates(states, output_head(self._reference_model))
        with scoring_mode(model), self.accelerator.unwrap_model(model).disable_adapter():
            states = response_hidden_states(model, rows)
        return ReferenceStates(states, output_head(model).detach())

    def _record(
        self, terms: dict[str, Tensor], logratios: Tensor, rows: Rows, treatments: Tensor, shares: Tensor
    ) -> None:
        """Keep the part's figures until the next log; what it has no pair for is left out, not zero."""
        first = rows.first
        prefer = first[treatments == Treatment.PREFER]
        correct = first[treatments == Treatment.CORRECT]
        suppress = first[treatments == Treatment.SUPPRESS]
        kept, affirm = first[is_retained(treatments)], first[treatments == Treatment.AFFIRM]
        worse = torch.cat([prefer + 1, correct + 1, correct + 2, suppress, suppress + 1, affirm + 1])
        values = {
            "margin": logratios[prefer] - logratios[prefer + 1],
            "logratio_preferred": logratios[torch.cat([prefer, correct])],
            "logratio_dispreferred": logratios[worse],
            "logratio_retained": logratios[kept],
        }
        found = {name: (v.sum(), v.new_tensor(len(v))) for name, v in values.items()}
        # A term is a mean over the whole batch, to which the parts' shares of it add up.
        members = {"invert_loss": 0, "punish_loss": 1, "retain_loss": 2, "retain_kl": 2}
        found |= {name: (terms[name].detach(), shares[kind]) for name, kind in members.items()}
        for name, entry in found.items():
            self._sums.setdefault(name, []).append(entry)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the means since the last log."""
        for name, entries in sorted(self._sums.items()):
            total, count = (float(torch.stack(column).sum()) for column in zip(*entries, strict=True))
            if count:
                logs[name] = total / count
        self._sums.clear()
        super().log(logs, *args, **kwargs)


def _accumulate(model: nn.Module, gradients: Gradient, scale: float) -> None:
    for name, parameter in model.named_parameters():
        if name in gradients:
            gradient = gradients[name].to(parameter.dtype) * scale
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def _show(terms: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in terms.items())
