"""Impact weights taken anew inside the training step, at the present θ: one forward, one backward."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from realignment.impact.ghost import Gradient, KeptPasses
from realignment.impact.scores import gold_gradient, head_direction, head_scores
from realignment.likelihood.head import Head
from realignment.likelihood.packing import Rows
from realignment.objective.hybrid import Objective, Treatment, dispositions_of, pair_losses
from realignment.parameters import ImpactParameters, TrainingParameters
from realignment.records import RealignmentError

FILE = "fresh_weights.pt"
MEMORY = 0.98
"""Share of the running mean of scores that a batch leaves: it remembers some fifty batches, or parts of them
where a token budget divides them."""


class FreshWeightsError(RealignmentError):
    """Options of the impact weights that weights taken in the step do not have."""


def check_options(impact: ImpactParameters, training: TrainingParameters) -> None:
    """Whether fresh weights, where they are asked for, are what the stage `impact` is asked for.

    They are the identity's and mean one. A curvature would take another pass over `curvature_pairs` conflicts
    at every renewal, which is more than the steps between two of them.

    Raises:
        FreshWeightsError: Another curvature or normalisation.
    """
    found = {"curvature": (impact.curvature, "identity"), "normalize": (impact.normalize, "mean_one")}
    other = {name: values for name, values in found.items() if values[0] != values[1]}
    if training.fresh_weights_every is not None and other:
        asked = ", ".join(f"`impact.{name}: {value}`" for name, (value, _) in other.items())
        known = ", ".join(f"`impact.{name}: {value}`" for name, (_, value) in other.items())
        raise FreshWeightsError(
            f"`training.fresh_weights_every: {training.fresh_weights_every}` takes weights in every step and "
            f"would leave {asked} out; expected {known}. Set that, or `training.fresh_weights_every: null`."
        )


@dataclass
class FreshWeights:
    """w̃ of a batch's conflicts at the present θ.

    s_i = ⟨g_J, ∇_θ ℓ_i⟩ of the batch (TRACE, arXiv:2511.02623, Algorithm 1) at θ instead of θ_ref; g_J is
    renewed every `every` steps. Clamped at zero and divided by the running mean of its disposition
    (bias-corrected), so that weights have mean one over some fifty batches, as ``mean_one`` weights have over
    the data.

    Attributes:
        gold: The gold pairs, laid out.
        references: log π_ref of each gold batch's responses, shape (R,) each.
        beta: β of the gold loss, which is DPO whatever is trained.
        every: Steps between two gold gradients.
        length_normalize: Divide a score by its pair's response tokens.
    """

    gold: Sequence[Rows]
    references: Sequence[Tensor]
    beta: float
    every: int
    length_normalize: bool
    direction: Gradient = field(default_factory=dict)
    renewed_at: int = -1
    sums: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.float64))
    counts: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.float64))

    def renew(self, model: nn.Module, step: int) -> None:
        """Take the gold gradient at the present θ, where it is due at this step."""
        if self.direction and step < self.renewed_at + self.every:
            return
        known = {id(rows): reference for rows, reference in zip(self.gold, self.references, strict=True)}
        objective = Objective(beta=self.beta)

        def losses(logprobs: Tensor, rows: Rows) -> Tensor:
            kinds = torch.full_like(rows.first, int(Treatment.PREFER))
            return pair_losses(logprobs, known[id(rows)].to(logprobs), rows, kinds, objective)

        self.direction, self.renewed_at = gold_gradient(model, list(self.gold), losses), step

    def scores(
        self, model: nn.Module, passes: KeptPasses, rows: Rows, hidden: Tensor, head: Head, slopes: Tensor
    ) -> Tensor:
        """s_i of every pair, shape (P,), from the kept layer passes of a backward of Σ_i ℓ_i.

        Args:
            model: The policy.
            passes: What the backward kept.
            rows: The pairs.
            hidden: States that predict the tokens, shape (N, d).
            head: The output head.
            slopes: ∂ℓ / ∂ log π of each token, shape (N,).
        """
        scores = passes.scores(self.direction, rows.owner, len(rows.first))
        along = head_direction(model, head, self.direction)
        if along is not None:
            scores = scores + head_scores(hidden, head, rows, slopes, along)
        if self.length_normalize:
            tokens = torch.zeros_like(scores).index_add(0, rows.pair, rows.length.to(scores.dtype))
            scores = scores / tokens
        return scores

    def weigh(self, scores: Tensor, treatments: Tensor) -> Tensor:
        """w̃ of every pair, shape (P,); RETAIN pairs have none and get one.

        Args:
            scores: s, shape (P,).
            treatments: `Treatment` of each pair, shape (P,).
        """
        weights = torch.ones_like(scores)
        for kind in range(2):
            mine = dispositions_of(treatments) == kind
            clamped = scores[mine].clamp(min=0)
            if not len(clamped):
                continue
            self.sums[kind] = MEMORY * self.sums[kind] + float(clamped.double().sum())
            self.counts[kind] = MEMORY * self.counts[kind] + len(clamped)
            mean = float(self.sums[kind] / self.counts[kind])
            weights[mine] = clamped / mean if mean > 0 else clamped
        return weights

    def save(self, folder: Path) -> None:
        """Keep what a resumed run needs beside a checkpoint."""
        state = {"direction": self.direction, "sums": self.sums, "counts": self.counts}
        torch.save(state | {"renewed_at": self.renewed_at}, folder / FILE)

    def load(self, folder: Path, device: Any) -> None:
        """Go on from a checkpoint."""
        state = torch.load(folder / FILE, map_location=device, weights_only=True)
        self.direction, self.renewed_at = state["direction"], state["renewed_at"]
        self.sums, self.counts = state["sums"].cpu(), state["counts"].cpu()


class FreshWeightsKeeper(TrainerCallback):
    """Keeps the weights' state beside every checkpoint: a resumed run goes on as if never interrupted."""

    def __init__(self, fresh: FreshWeights) -> None:
        self._fresh = fresh

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A checkpoint was written."""
        self._fresh.save(_checkpoint(args, state))

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Where an interrupted run goes on, so do its weights."""
        folder = _checkpoint(args, state)
        if state.global_step and (folder / FILE).is_file():
            self._fresh.load(folder, next(model.parameters()).device)


def _checkpoint(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
