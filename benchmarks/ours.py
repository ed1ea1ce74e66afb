"""Our side of every comparison: the only module here that calls the method."""

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
from realignment.training.online_weights import FreshWeights
from realignment.training.run import training_arguments
from realignment.training.trainer import RealignTrainer

LAYOUT = Layout(pad_id=0)
TOKEN_BUDGET = 1024
OBJECTIVE = Objective(beta=0.1, suppress="npo_paper")
"""DPO and NPO as the published code has them."""


def examples(pairs: Sequence[TokenizedPair], treatments: Sequence[Treatment]) -> list[Example]:
    """Pairs to train on or to score."""
    return [
        Example(str(i), pair, treatment)
        for i, (pair, treatment) in enumerate(zip(pairs, treatments, strict=True))
    ]


def preferences(pairs: Sequence[TokenizedPair]) -> list[Example]:
    """Every first response is preferred."""
    return examples(pairs, [Treatment.PREFER] * len(pairs))


def conflicts(pairs: Sequence[TokenizedPair]) -> list[Example]:
    """INVERT and PUNISH in turn."""
    kinds = (Treatment.PREFER, Treatment.SUPPRESS)
    return examples(pairs, [kinds[i % 2] for i in range(len(pairs))])


@torch.no_grad()
def reference_log_probabilities(model: Any, batch: Sequence[Example]) -> list[tuple[float, ...]]:
    """The log π of every example's responses, by the model as it is."""
    found: dict[int, tuple[float, ...]] = {}
    for members in LAYOUT.batches([e.tokens for e in batch], budget=TOKEN_BUDGET):
        rows = LAYOUT([batch[i].tokens for i in members]).to(model.device)
        values = response_log_probabilities(model, rows)
        found |= {i: tuple(values[rows.pair == rank].tolist()) for rank, i in enumerate(members)}
    return [found[i] for i in range(len(batch))]


def with_reference(model: Any, batch: Sequence[Example]) -> list[Example]:
    """The examples with the model as their reference."""
    values = reference_log_probabilities(model, batch)
    return [replace(e, reference=reference) for e, reference in zip(batch, values, strict=True)]


def gold_gradient(model: Any, gold: Sequence[Example]) -> Gradient:
    """g_J by parameter name."""
    return compute_gold_gradient(model, gold, OBJECTIVE, layout=LAYOUT, token_budget=TOKEN_BUDGET)


def scores_and_references(model: Any, batch: Sequence[Example], direction: Gradient) -> Result:
    """Impact scores (N,) and reference log-probabilities (2N,) in one pass."""
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


def trainer(
    model: Any, batch: Sequence[Example], *, device: str = "cpu", fixed_weights: bool = True
) -> RealignTrainer:
    """Our trainer, ready for `step`; with `fixed_weights` it leaves conflicts of weight zero out."""
    settings = TrainingParameters(lora=None, max_kl=1.0, batch_size=len(batch))
    arguments = training_arguments(
        Path(tempfile.gettempdir()) / "realignment-benchmark",
        steps=1,
        device=device,
        settings=settings,
        seed=0,
    )
    made = RealignTrainer(
        model=model,
        args=arguments,
        train_dataset=list(batch),
        data_collator=Collator(LAYOUT, fixed_weights=fixed_weights),
        objective=OBJECTIVE,
    )
    return made


def with_fresh_weights(
    trainer: RealignTrainer, gold: Sequence[Example], *, reference_model: Any = None
) -> RealignTrainer:
    """The same trainer, taking exact weights in every step; only `renew` takes the gold gradient anew."""
    model = trainer.model
    rows = LAYOUT([e.tokens for e in gold]).to(model.device)
    if reference_model is not None:
        known = with_reference(reference_model, gold)
    else:
        with model.disable_adapter():
            known = with_reference(model, gold)
    references = torch.tensor([value for e in known for value in e.reference])
    fresh = FreshWeights([rows], [references], OBJECTIVE.beta, every=10**9, length_normalize=False)
    fresh.renew(model, 0)
    trainer._fresh = fresh
    return trainer


def renew(trainer: RealignTrainer) -> Result:
    """The gold gradient anew, which `fresh_weights_every` steps share."""
    fresh = trainer._fresh
    assert fresh is not None
    fresh.direction = {}
    fresh.renew(trainer.model, 0)
    return {"gold gradient": list(fresh.direction.values())}


def weighted(trainer: RealignTrainer, batch: Sequence[Example]) -> list[Example]:
    """The batch with the weights that its impact scores at the present parameters give it, mean one."""
    fresh = trainer._fresh
    assert fresh is not None
    kinds = torch.tensor([int(e.treatment) for e in batch])
    reference = torch.tensor([value for e in batch for value in e.reference])

    def losses(logprobs: Tensor, rows: Rows) -> Tensor:
        return pair_losses(logprobs, reference.to(logprobs), rows, kinds.to(logprobs.device), OBJECTIVE)

    rows = LAYOUT([e.tokens for e in batch]).to(trainer.model.device)
    scores, _ = impact_scores(trainer.model, rows, losses, fresh.direction)
    weights = scores.clamp(min=0) / scores.clamp(min=0).mean()
    return [replace(e, weight=float(w)) for e, w in zip(batch, weights, strict=True)]


def step(trainer: RealignTrainer, batch: Sequence[Example]) -> Result:
    """One training step with static weights, from tokens to gradients, without the optimizer's update."""
    trainer.model.zero_grad()
    loss = trainer.training_step(trainer.model, trainer.data_collator(batch))
    return {"loss": [loss], "gradient": gradients(trainer.model)}


def gradients(model: Any) -> list[Tensor]:
    """Of every trained parameter, in the model's order."""
    return [
        p.grad if p.grad is not None else torch.zeros_like(p) for p in model.parameters() if p.requires_grad
    ]


def kl(hidden: Tensor, head: Tensor, reference_hidden: Tensor) -> Result:
    """Mean KL over tokens, and its gradient by the hidden states."""
    hidden = hidden.clone().requires_grad_()
    value = token_kl(hidden, Head(head), ReferenceStates(reference_hidden, Head(head))).mean()
    value.backward()
    return {"kl": [value], "gradient": [hidden.grad]}
