"""Online weights: impact weights at the present θ, computed inside the training step."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from realignment.impact.ghost import Gradient, RecordedPasses
from realignment.impact.scores import gold_gradient, head_direction, head_scores, normalize_by_length
from realignment.likelihood.backbone import scoring_mode
from realignment.likelihood.head import Head
from realignment.likelihood.log_probs import response_log_probabilities
from realignment.likelihood.packing import Layout, Rows
from realignment.objective.hybrid import (
    Example,
    Objective,
    Treatment,
    pair_losses,
)
from realignment.parameters import ImpactParameters, LossParameters, TrainingParameters
from realignment.records import RealignmentError

STATE_FILE = "fresh_weights.pt"

DECAY = 0.98
"""What a batch leaves of the running mean of scores: it remembers some fifty batches, or parts of them where
a token budget divides them."""


class OnlineWeightsError(RealignmentError):
    """Options of the impact weights that online weights do not have."""


def check_options(impact: ImpactParameters, training: TrainingParameters, loss: LossParameters) -> None:
    """Refuse options that online weights, where they are on, would ignore or take wrongly.

    They have the curvature `identity` and mean one. Another curvature would take another pass over
    `curvature_pairs` conflicts for every new gold gradient, which is more than the steps between two of them.
    And they are taken from the gradient that is trained, which is not the one of labels without errors where
    the loss is robust.

    Args:
        impact: Options of the static weights.
        training: `fresh_weights_every` says whether weights are online.
        loss: Options of the loss.

    Raises:
        OnlineWeightsError: Another curvature or normalisation, or the robust loss.
    """
    if training.fresh_weights_every is None:
        return
    if loss.invert == "robust":
        raise OnlineWeightsError(
            f"`training.fresh_weights_every: {training.fresh_weights_every}` takes its scores from the "
            "gradient of `loss.invert: robust`, which counts the oracle's errors already, so that they would "
            "count twice. Set `training.fresh_weights_every: null`, or another `loss.invert`."
        )
    options = {"curvature": (impact.curvature, "identity"), "normalize": (impact.normalize, "mean_one")}
    ignored = {name: values for name, values in options.items() if values[0] != values[1]}
    if ignored:
        configured = ", ".join(f"`impact.{name}: {value}`" for name, (value, _) in ignored.items())
        expected = ", ".join(f"`impact.{name}: {value}`" for name, (_, value) in ignored.items())
        raise OnlineWeightsError(
            f"`training.fresh_weights_every: {training.fresh_weights_every}` computes weights in every step "
            f"and would leave {configured} out; expected {expected}. Set that, or "
            "`training.fresh_weights_every: null`."
        )


@dataclass
class OnlineWeights:
    """w̃ of a batch's conflicts at the present θ.

    s_i = ⟨g_J, ∇_θ ℓ_i⟩ of the batch (TRACE, arXiv:2511.02623, Algorithm 1) at θ instead of θ_ref; g_J is
    computed anew every `every` steps. Clamped at zero and divided by the running mean of its treatment
    (bias-corrected), so that weights have mean one over some fifty batches, as ``mean_one`` weights have over
    the data.

    Attributes:
        gold: The gold pairs, packed.
        references: log π_ref of each gold batch's responses, shape (R,) each.
        beta: β of the gold loss, which is DPO whatever is trained.
        every: Steps between two gold gradients.
        length_normalize: Whether a score is divided by its pair's response tokens.
        direction: g_J by parameter name; empty before the first step.
        renewed_at: The step in which it was computed.
        sums: Decayed sums of clamped scores by treatment, shape (T,).
        counts: Decayed counts of the same pairs, shape (T,).
    """

    gold: Sequence[Rows]
    references: Sequence[Tensor]
    beta: float
    every: int
    length_normalize: bool
    direction: Gradient = field(default_factory=dict)
    renewed_at: int = -1
    sums: Tensor = field(default_factory=lambda: torch.zeros(len(Treatment), dtype=torch.float64))
    counts: Tensor = field(default_factory=lambda: torch.zeros(len(Treatment), dtype=torch.float64))

    @classmethod
    def at_reference(
        cls,
        model: Any,
        gold: Sequence[Example],
        *,
        layout: Layout,
        token_budget: int,
        beta: float,
        every: int,
        length_normalize: bool,
    ) -> "OnlineWeights":
        """Pack the gold pairs, and compute their log π_ref while the model still is the reference.

        Args:
            model: At θ_ref.
            gold: The gold batch.
            layout: How the model's pairs are packed.
            token_budget: Tokens of a forward pass.
            beta: See the attributes.
            every: See the attributes.
            length_normalize: See the attributes.

        Returns:
            Weights without a gold gradient yet.
        """
        tokens = [example.tokens for example in gold]
        packed = layout.pack_batches(tokens, budget=token_budget, device=model.device)
        batches = [rows for _, rows in packed]
        with torch.no_grad(), scoring_mode(model):
            references = [response_log_probabilities(model, rows) for rows in batches]
        return cls(batches, references, beta, every, length_normalize)

    def renew_gold_gradient(self, model: nn.Module, step: int) -> None:
        """Compute the gold gradient at the present θ, if it is due at this step."""
        if self.direction and step < self.renewed_at + self.every:
            return
        # `gold_gradient` passes back the very rows that it was given, so they can be keyed by identity.
        references = {id(rows): values for rows, values in zip(self.gold, self.references, strict=True)}
        dpo = Objective(beta=self.beta)

        def losses(logprobs: Tensor, rows: Rows) -> Tensor:
            treatments = torch.full_like(rows.first, int(Treatment.PREFER))
            return pair_losses(logprobs, references[id(rows)].to(logprobs), rows, treatments, dpo)

        self.direction = gold_gradient(model, list(self.gold), losses)
        self.renewed_at = step

    def scores(
        self,
        model: nn.Module,
        passes: RecordedPasses,
        rows: Rows,
        hidden: Tensor,
        head: Head,
        slopes: Tensor,
    ) -> Tensor:
        """Compute s_i of every pair from the recorded layer passes of a backward of Σ_i ℓ_i.

        Args:
            model: The policy.
            passes: What the backward recorded.
            rows: The pairs.
            hidden: States that predict the tokens, shape (N, d).
            head: The output head.
            slopes: ∂ℓ / ∂ log π of each token, shape (N,).

        Returns:
            Shape (P,).
        """
        scores = passes.scores(self.direction, rows.owner, len(rows.first))
        weight_change = head_direction(model, head, self.direction)
        if weight_change is not None:
            scores = scores + head_scores(hidden, head, rows, slopes, weight_change)
        return normalize_by_length(scores, rows) if self.length_normalize else scores

    def normalize(self, scores: Tensor, treatments: Tensor) -> Tensor:
        """Turn scores into weights of mean one, and add them to the running means.

        Args:
            scores: s, shape (P,).
            treatments: `Treatment` of each pair, shape (P,).

        Returns:
            w̃, shape (P,); one for RETAIN pairs, which have no impact weight.
        """
        weights = torch.ones_like(scores)
        # Scores of different losses are on different scales, so each treatment has a mean of its own.
        for treatment in (kind for kind in Treatment if kind.is_conflict):
            mask = treatments == treatment
            clamped = scores[mask].clamp(min=0)
            if not len(clamped):
                continue
            self.sums[treatment] = DECAY * self.sums[treatment] + float(clamped.double().sum())
            self.counts[treatment] = DECAY * self.counts[treatment] + len(clamped)
            # Both decay alike, so early on the mean is that of the few batches so far.
            mean = float(self.sums[treatment] / self.counts[treatment])
            weights[mask] = clamped / mean if mean > 0 else clamped
        return weights

    def save(self, folder: Path) -> None:
        """Save what a resumed run needs beside a checkpoint."""
        state = {"direction": self.direction, "sums": self.sums, "counts": self.counts}
        torch.save(state | {"renewed_at": self.renewed_at}, folder / STATE_FILE)

    def load(self, folder: Path, device: Any) -> None:
        """Load the state beside a checkpoint."""
        state = torch.load(folder / STATE_FILE, map_location=device, weights_only=True)
        self.direction = state["direction"]
        self.renewed_at = state["renewed_at"]
        self.sums = state["sums"].cpu()
        self.counts = state["counts"].cpu()


class OnlineWeightsCallback(TrainerCallback):
    """Saves the weights' state beside every checkpoint: a resumed run goes on as if never interrupted."""

    def __init__(self, online_weights: OnlineWeights) -> None:
        self._online_weights = online_weights

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save the state beside the checkpoint that was just written."""
        self._online_weights.save(_checkpoint_folder(args, state))

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Load the state of the checkpoint from which an interrupted run goes on."""
        folder = _checkpoint_folder(args, state)
        if state.global_step and (folder / STATE_FILE).is_file():
            self._online_weights.load(folder, next(model.parameters()).device)


def _checkpoint_folder(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
