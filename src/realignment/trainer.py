"""The trainer: a batch of examples → the hybrid loss. Stands on transformers' public surface only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer

from realignment import likelihood
from realignment.likelihood import scoring_mode
from realignment.objective import (
    Example,
    Objective,
    Treatment,
    count_dispositions,
    hybrid_loss,
    is_retained,
    pair_losses,
)
from realignment.records import HealthError
from realignment.rows import Layout, Rows
from realignment.vocabulary import Head, token_likelihoods

Part = dict[str, Any]
"""A part of a batch that one forward pass takes, as tensors; see `Collator`."""


@dataclass(frozen=True, slots=True)
class Collator:
    """Examples → one batch, in parts of at most `token_budget` tokens (but one pair at least).

    A batch is what the loss is a mean over, a part is what fits the memory: the losses of the parts add up to the
    batch's, whatever the budget.
    """

    layout: Layout
    token_budget: int | None = None

    def __call__(self, examples: Sequence[Example]) -> dict[str, list[Part]]:
        """The parts (nested dicts of tensors, so that any accelerator can move them)."""
        counts = count_dispositions(torch.tensor([int(example.treatment) for example in examples]))
        parts = self.layout.batches([e.tokens for e in examples], budget=self.token_budget)
        return {"parts": [self._collate([examples[i] for i in sorted(part)], counts) for part in parts]}

    def _collate(self, examples: Sequence[Example], counts: Tensor) -> Part:
        """Lay the examples out; NaN stands for a reference that is not known."""
        reference = [
            value for e in examples for value in (e.reference or (float("nan"),) * len(e.tokens.responses))
        ]
        retained = [example.tokens for example in examples if not example.treatment.is_conflict]
        return {
            "rows": _tensors(self.layout([example.tokens for example in examples])),
            "retained": _tensors(self.layout(retained)) if retained else {},
            "treatments": torch.tensor([int(example.treatment) for example in examples]),
            "weights": torch.tensor([example.weight for example in examples]),
            "reference": torch.tensor(reference),
            "counts": counts,
        }


def _tensors(rows: Rows) -> dict[str, Tensor]:
    return {name: getattr(rows, name) for name in Rows.__slots__}


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the model makes of a part of a batch.

    Attributes:
        rows: The part's pairs.
        hidden: States that predict the response tokens, shape (N, d).
        logprobs: log π_θ of each response token, shape (N,).
        kl: KL to the reference at each token; zero at tokens of conflicts, shape (N,).
        reference: log π_ref of each response, shape (R,).
    """

    rows: Rows
    hidden: Tensor
    logprobs: Tensor
    kl: Tensor
    reference: Tensor


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
        self._sums: dict[str, list[tuple[Tensor, Tensor]]] = {}
        # The loss is a mean over the batch: let Trainer divide by the accumulation steps.
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

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> Tensor:
        """One batch, forward and backward part by part: memory is that of the largest part."""
        model.train()
        inputs = self._prepare_inputs(inputs)
        steps = self.args.gradient_accumulation_steps
        losses = []
        for part in inputs["parts"]:
            with self.compute_loss_context_manager():
                loss = self.compute_loss(model, {"parts": [part]}) / steps
            self.accelerator.backward(loss)
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> Tensor:
        """The hybrid loss of one batch."""
        return torch.stack([self._loss(model, part) for part in inputs["parts"]]).sum()

    def _loss(self, model: nn.Module, part: Part) -> Tensor:
        outlook, treatments = self._look(model, part), part["treatments"]
        rows = outlook.rows
        logprobs = likelihood.sum_per_response(outlook.logprobs, rows)
        per_pair = pair_losses(logprobs, outlook.reference, rows, treatments, self._objective)
        total, terms = hybrid_loss(
            per_pair,
            part["weights"],
            treatments,
            retained_kl(outlook.kl, rows, treatments),
            self._objective,
            part["counts"],
        )
        if not torch.isfinite(total):
            raise HealthError(
                f"The loss is {float(total.detach())} at step {self.state.global_step + 1} ({_show(terms)}), "
                "expected a finite number. Nothing was saved from this step. Lower `training.learning_rate`, "
                "or use float32 (`model.dtype`)."
            )
        self._record(terms, logprobs.detach() - outlook.reference, rows, treatments, part["counts"])
        return total

    def _look(self, model: nn.Module, part: Part) -> Outlook:
        """One forward pass; the reference's share of it without gradient."""
        rows, retained = Rows(**part["rows"]), is_retained(part["treatments"])
        hidden, head = likelihood.response_hidden_states(model, rows), likelihood.output_head(model)
        is_kept = retained[rows.pair[rows.response]]
        conflict, kept = ((~is_kept).nonzero()[:, 0], is_kept.nonzero()[:, 0])
        tokens = token_likelihoods(hidden[conflict], head, rows.target[conflict])
        logprobs = tokens.logprob.new_zeros(len(rows.target)).index_add(0, conflict, tokens.logprob)
        kl = torch.zeros_like(logprobs)
        reference = part["reference"].to(logprobs.dtype, copy=True)
        if len(kept):
            states, reference_head = self._reference_states(model, Rows(**part["retained"]))
            tokens = token_likelihoods(hidden[kept], head, rows.target[kept], states, reference_head)
            logprobs, kl = (
                total.index_add(0, kept, values)
                for total, values in ((logprobs, tokens.logprob), (kl, tokens.kl))
            )
            found = torch.zeros_like(logprobs).index_add(0, kept, tokens.reference)
            of_kept = retained[rows.pair]
            reference[of_kept] = likelihood.sum_per_response(found, rows)[of_kept]
        return Outlook(rows, hidden, logprobs, kl, reference)

    @torch.no_grad()
    def _reference_states(self, model: nn.Module, rows: Rows) -> tuple[Tensor, Head]:
        """Hidden states and head of the reference, without dropout."""
        if self._reference_model is not None:
            with scoring_mode(self._reference_model):
                states = likelihood.response_hidden_states(self._reference_model, rows)
            return states, likelihood.output_head(self._reference_model)
        with scoring_mode(model), self.accelerator.unwrap_model(model).disable_adapter():
            return likelihood.response_hidden_states(model, rows), likelihood.output_head(model)

    def _record(
        self, terms: dict[str, Tensor], logratios: Tensor, rows: Rows, treatments: Tensor, counts: Tensor
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
        # A term is a mean over the whole batch: the parts' shares of the batch's pairs add up to one.
        members = {"invert_loss": 0, "punish_loss": 1, "retain_loss": 2, "retain_kl": 2}
        share = count_dispositions(treatments) / counts.clamp(min=1)
        found |= {name: (terms[name].detach(), share[kind]) for name, kind in members.items()}
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


def retained_kl(kl: Tensor, rows: Rows, treatments: Tensor) -> Tensor:
    """Token-mean KL of each RETAIN pair's chosen response, in order, shape (N_RETAIN,).

    Args:
        kl: KL at each token, shape (N,).
        rows: The pairs.
        treatments: `Treatment` of each pair, shape (P,).
    """
    chosen = rows.first[is_retained(treatments)]
    return likelihood.sum_per_response(kl, rows)[chosen] / rows.length[chosen]


def _show(terms: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in terms.items())
