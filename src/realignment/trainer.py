"""The trainer: a batch of examples → the hybrid loss. Stands on transformers' public surface only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer

from realignment import likelihood, losses
from realignment.likelihood import scoring_mode
from realignment.objective import (
    Example,
    Objective,
    Treatment,
    error_rates,
    first_responses,
    hybrid_loss,
    is_retained,
    pair_losses,
)
from realignment.records import HealthError
from realignment.rows import Rows, lay_out


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
            "error_rates": error_rates(examples),
            "reference": torch.tensor(reference),
        }


class RealignTrainer(Trainer):
    """transformers' Trainer with the hybrid objective; nothing else differs.

    The reference is the model with its adapters switched off, in the same batch; full fine-tuning takes a
    frozen copy.
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
        """The examples in the order of `train`, all epochs at once: a resumed run meets the same batches."""
        loader = DataLoader(
            self.train_dataset,
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
        kept = is_retained(treatments).nonzero()[:, 0]
        retained_kl, kept_reference = self._retained(model, rows, kept, hidden)
        reference = inputs["reference"].to(logprobs.dtype, copy=True)
        reference[torch.isin(rows.pair, kept)] = kept_reference.to(reference.dtype)
        rates = inputs["error_rates"]
        per_pair = pair_losses(logprobs, reference, rows, treatments, self._objective, rates)
        total, terms = hybrid_loss(per_pair, inputs["weights"], treatments, retained_kl, self._objective)
        if not torch.isfinite(total):
            raise HealthError(
                f"The loss is {float(total.detach())} at step {self.state.global_step + 1} ({_show(terms)}), "
                "expected a finite number. Nothing was saved from this step. Lower `training.learning_rate`, "
                "or use float32 (`model.dtype`)."
            )
        self._record(terms, logprobs.detach() - reference, rows, treatments)
        return total

    def _retained(self, model: nn.Module, rows: Rows, kept: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Mean KL of the RETAIN rows' chosen responses, and log π_ref of all responses of these rows."""
        if not len(kept):
            return hidden.new_zeros(()), hidden.new_zeros(0)
        part = rows.select(kept)
        reference_hidden, reference_head = self._reference_states(model, part)
        chosen = torch.isin(part.response, first_responses(part))
        mine = hidden[torch.isin(rows.pair[rows.response], kept)]
        coefficients = 1.0 / (part.length[part.response[chosen]] * len(kept))
        head = likelihood.output_head(model)
        value = losses.token_kl(mine[chosen], head, reference_hidden[chosen], reference_head, coefficients)
        tokens = likelihood.token_log_probabilities(reference_hidden, reference_head, part.target)
        return value, likelihood.sum_per_response(tokens, part)

    @torch.no_grad()
    def _reference_states(self, model: nn.Module, rows: Rows) -> tuple[Tensor, Tensor]:
        """Hidden states and head of the reference, without dropout."""
        if self._reference_model is not None:
            with scoring_mode(self._reference_model):
                states = likelihood.response_hidden_states(self._reference_model, rows)
            return states, likelihood.output_head(self._reference_model)
        with scoring_mode(model), self.accelerator.unwrap_model(model).disable_adapter():
            return likelihood.response_hidden_states(model, rows), likelihood.output_head(model)

    def _record(self, terms: dict[str, Tensor], logratios: Tensor, rows: Rows, treatments: Tensor) -> None:
        """Keep the batch's figures until the next log; what it has no pair for is left out, not zero."""
        first = first_responses(rows)
        prefer = first[treatments == Treatment.PREFER]
        correct = first[treatments == Treatment.CORRECT]
        suppress = first[treatments == Treatment.SUPPRESS]
        kept, affirm = first[is_retained(treatments)], first[treatments == Treatment.AFFIRM]
        worse = torch.cat([prefer + 1, correct + 1, correct + 2, suppress, suppress + 1, affirm + 1])
        means = {
            "margin": logratios[prefer] - logratios[prefer + 1],
            "logratio_preferred": logratios[torch.cat([prefer, correct])],
            "logratio_dispreferred": logratios[worse],
            "logratio_retained": logratios[kept],
        }
        present = {name: values.mean() for name, values in means.items() if len(values)}
        members = {"invert_loss": prefer, "punish_loss": torch.cat([correct, suppress]), "retain_kl": kept}
        members |= {"retain_loss": kept}
        present |= {name: terms[name].detach() for name, pairs in members.items() if len(pairs)}
        self._metrics.append(present)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the means since the last log."""
        names = sorted({name for metrics in self._metrics for name in metrics})
        for name in names:
            values = [metrics[name] for metrics in self._metrics if name in metrics]
            logs[name] = float(torch.stack(values).mean())
        self._metrics.clear()
        super().log(logs, *args, **kwargs)


def _show(terms: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in terms.items())
