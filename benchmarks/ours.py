"""Our side of every comparison: the only module here that calls our implementation."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from harness import Result
from torch import Tensor

from realignment.impact.ghost import Gradient
from realignment.impact.scores import impact_scores
from realignment.impact.scoring import compute_gold_gradient, score_conflicts
from realignment.likelihood.divergence import ReferenceStates
from realignment.likelihood.head import Head
from realignment.likelihood.log_probs import response_log_probabilities
from realignment.likelihood.packing import Layout, Rows
from realignment.likelihood.tiled import token_kl
from realignment.likelihood.tokenization import TokenizedPair
from realignment.objective.hybrid import Example, Objective, Treatment, pair_losses
from realignment.parameters import TrainingParameters
from realignment.training.collation import Collator
from realignment.training.online_weights import OnlineWeights
from realignment.training.run import training_arguments
from realignment.training.trainer import RealignTrainer

LAYOUT = Layout(pad_id=0)
TOKEN_BUDGET = 1024
OBJECTIVE = Objective(beta=0.1, suppress="npo_paper")
"""DPO and NPO as the published code has them."""


def build_examples(pairs: Sequence[TokenizedPair], treatments: Sequence[Treatment]) -> list[Example]:
    """Build examples to train on or to score."""
    return [
        Example(str(i), pair, treatment)
        for i, (pair, treatment) in enumerate(zip(pairs, treatments, strict=True))
    ]


def build_preferences(pairs: Sequence[TokenizedPair]) -> list[Example]:
    """Build examples in which every first response is preferred."""
    return build_examples(pairs, [Treatment.PREFER] * len(pairs))


def build_conflicts(pairs: Sequence[TokenizedPair]) -> list[Example]:
    """Build conflicts, INVERT and PUNISH in turn."""
    kinds = (Treatment.PREFER, Treatment.SUPPRESS)
    return build_examples(pairs, [kinds[i % 2] for i in range(len(pairs))])


@torch.no_grad()
def compute_reference_log_probabilities(model: Any, batch: Sequence[Example]) -> list[tuple[float, ...]]:
    """Compute the log-probabilities of every example's responses under the model as it is."""
    values_by_example: dict[int, tuple[float, ...]] = {}
    for members in LAYOUT.batches([e.tokens for e in batch], budget=TOKEN_BUDGET):
        rows = LAYOUT([batch[i].tokens for i in members]).to(model.device)
        values = response_log_probabilities(model, rows)
        values_by_example |= {i: tuple(values[rows.pair == rank].tolist()) for rank, i in enumerate(members)}
    return [values_by_example[i] for i in range(len(batch))]


def add_references(model: Any, batch: Sequence[Example]) -> list[Example]:
    """Return the examples with the model as their reference."""
    values = compute_reference_log_probabilities(model, batch)
    return [replace(e, reference=reference) for e, reference in zip(batch, values, strict=True)]


def compute_batch_gold_gradient(model: Any, gold: Sequence[Example]) -> Gradient:
    """Compute the gradient of the gold loss, by parameter name."""
    return compute_gold_gradient(model, gold, OBJECTIVE, layout=LAYOUT, token_budget=TOKEN_BUDGET)


def compute_scores_and_references(model: Any, batch: Sequence[Example], direction: Gradient) -> Result:
    """Compute impact scores (N,) and reference log-probabilities (2N,) in one pass."""
    scored = score_conflicts(
        model,
        batch,
        direction,
        OBJECTIVE,
        layout=LAYOUT,
        token_budget=TOKEN_BUDGET,
        length_normalize=False,
        progress=None,
    )
    references = torch.tensor([value for _, reference in scored for value in reference])
    return {"scores": [torch.tensor([score for score, _ in scored])], "references": [references]}


def build_trainer(
    model: Any, batch: Sequence[Example], *, device: str = "cpu", fixed_weights: bool = True
) -> RealignTrainer:
    """Build our trainer, ready for `step`; with `fixed_weights` it leaves out conflicts of weight zero."""
    settings = TrainingParameters(lora=None, max_kl=1.0, batch_size=len(batch))
    arguments = training_arguments(
        Path(tempfile.gettempdir()) / "realignment-benchmark",
        steps=1,
        device=device,
        settings=settings,
        seed=0,
    )
    return RealignTrainer(
        model=model,
        args=arguments,
        train_dataset=list(batch),
        data_collator=Collator(LAYOUT, fixed_weights=fixed_weights),
        objective=OBJECTIVE,
    )


def enable_online_weights(
    trainer: RealignTrainer, gold: Sequence[Example], *, reference_model: Any = None
) -> RealignTrainer:
    """Make the trainer compute exact weights in every step, with one gold gradient until it is renewed."""
    model = trainer.model
    rows = LAYOUT([e.tokens for e in gold]).to(model.device)
    if reference_model is not None:
        examples = add_references(reference_model, gold)
    else:
        with model.disable_adapter():
            examples = add_references(model, gold)
    references = torch.tensor([value for e in examples for value in e.reference])
    online = OnlineWeights([rows], [references], OBJECTIVE.beta, every=10**9, length_normalize=False)
    online.renew_gold_gradient(model, 0)
    trainer._online_weights = online
    return trainer


def renew_gold_gradient(trainer: RealignTrainer) -> Result:
    """Compute the gold gradient again, which many steps share."""
    online = trainer._online_weights
    assert online is not None
    online.direction = {}
    online.renew_gold_gradient(trainer.model, 0)
    return {"gold gradient": list(online.direction.values())}


def add_weights(trainer: RealignTrainer, batch: Sequence[Example]) -> list[Example]:
    """Return the batch with weights from its impact scores at the current parameters, of mean 1."""
    online = trainer._online_weights
    assert online is not None
    kinds = torch.tensor([int(e.treatment) for e in batch])
    reference = torch.tensor([value for e in batch for value in e.reference])

    def losses(logprobs: Tensor, rows: Rows) -> Tensor:
        return pair_losses(logprobs, reference.to(logprobs), rows, kinds.to(logprobs.device), OBJECTIVE)

    rows = LAYOUT([e.tokens for e in batch]).to(trainer.model.device)
    scores, _ = impact_scores(trainer.model, rows, losses, online.direction)
    weights = scores.clamp(min=0) / scores.clamp(min=0).mean()
    return [replace(e, weight=float(w)) for e, w in zip(batch, weights, strict=True)]


def step(trainer: RealignTrainer, batch: Sequence[Example]) -> Result:
    """Run one training step with static weights, from tokens to gradients, without the optimizer's update."""
    trainer.model.zero_grad()
    loss = trainer.training_step(trainer.model, trainer.data_collator(batch))
    return {"loss": [loss], "gradient": collect_gradients(trainer.model)}


def collect_gradients(model: Any) -> list[Tensor]:
    """Return the gradient of every trained parameter, in the model's order."""
    return [
        p.grad if p.grad is not None else torch.zeros_like(p) for p in model.parameters() if p.requires_grad
    ]


def kl(hidden: Tensor, head: Tensor, reference_hidden: Tensor) -> Result:
    """Compute the mean KL over tokens, and its gradient with respect to the hidden states."""
    hidden = hidden.clone().requires_grad_()
    value = token_kl(hidden, Head(head), ReferenceStates(reference_hidden, Head(head))).mean()
    value.backward()
    return {"kl": [value], "gradient": [hidden.grad]}
