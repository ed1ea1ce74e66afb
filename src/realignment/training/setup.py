"""A model with its tokenizer and the settings of a run: what the stages `impact` and `training` work with."""

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from realignment.impact.scoring import compute_weights
from realignment.impact.weights import join_weights
from realignment.likelihood.backbone import autocast, output_head
from realignment.likelihood.head import Head
from realignment.likelihood.layout_probe import choose_layout
from realignment.likelihood.packing import Layout
from realignment.model.adapters import make_trainable, save_trained_model
from realignment.model.loading import load_configured_model
from realignment.objective import examples
from realignment.objective.hybrid import Example, Objective
from realignment.parameters import ImpactParameters, LossParameters, TrainingParameters
from realignment.parameters.base import ModelParameters
from realignment.training.callbacks import DriftGuard, ProgressBar
from realignment.training.online_weights import OnlineWeights, check_options
from realignment.training.reference import CachedReference, cache_reference
from realignment.training.run import (
    HISTORY_COLUMNS,
    TrainingError,
    build_objective,
    build_plans,
    checkpoint_activations,
    choose_learning_rate,
    count_steps,
    train,
    training_arguments,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSetup:
    """The trainable model at θ_ref, and how it is to be trained.

    Attributes:
        path: Where the model was loaded from.
        model: With fresh adapters, or all of its parameters trainable.
        tokenizer: The model's own.
        layout: How its pairs are packed.
        objective: The hybrid loss.
        loss: Parameters of the loss.
        training: Parameters of the training.
        seed: Seed of the run.
    """

    path: str
    model: Any
    tokenizer: Any
    layout: Layout
    objective: Objective
    loss: LossParameters
    training: TrainingParameters
    seed: int

    def build_examples(self, pairs: pd.DataFrame) -> list[Example]:
        """Build an example of each pair; see `objective.examples.build_examples`."""
        return examples.build_examples(
            pairs,
            self.tokenizer,
            build_plans(self.loss),
            audited=self.loss.invert == "robust" and self.loss.error_rate == "audited",
            max_response_tokens=self.training.max_response_tokens,
            max_tokens=self.training.max_tokens,
        )

    def build_weighted_examples(self, pairs: pd.DataFrame, weights: pd.DataFrame) -> list[Example]:
        """Build an example of each pair, conflicts with impact weight and reference log-probabilities.

        Args:
            pairs: All training pairs.
            weights: The table `impact_weights`.

        Returns:
            The examples, in the order of the pairs; see `impact.weights.join_weights`.
        """
        return join_weights(self.build_examples(pairs), weights)

    def compute_weights(
        self, conflicts: pd.DataFrame, gold: pd.DataFrame, parameters: ImpactParameters
    ) -> pd.DataFrame:
        """Compute the table `impact_weights`.

        Args:
            conflicts: INVERT and PUNISH pairs.
            gold: The gold batch.
            parameters: Parameters of the stage `impact`.

        Returns:
            See `impact.scoring.compute_weights`.
        """
        return compute_weights(
            self.model,
            self.build_examples(conflicts),
            dict(zip(conflicts["pair_id"], conflicts["disposition"], strict=True)),
            self._build_gold_examples(gold),
            self.objective,
            parameters,
            layout=self.layout,
            seed=self.seed,
        )

    def _build_gold_examples(self, gold: pd.DataFrame) -> list[Example]:
        settings = self.training
        return examples.build_gold_examples(
            gold,
            self.tokenizer,
            max_response_tokens=settings.max_response_tokens,
            max_tokens=settings.max_tokens,
        )

    def online_weights(self, gold: pd.DataFrame, impact: ImpactParameters) -> OnlineWeights | None:
        """Prepare weights at the present θ in every step.

        Args:
            gold: The gold batch.
            impact: Parameters of the stage `impact`.

        Returns:
            The weights before the first step; None: `training.fresh_weights_every` is null.

        Raises:
            OnlineWeightsError: The stage `impact` has options that online weights do not have.
        """
        every = self.training.fresh_weights_every
        if every is None:
            return None
        check_options(impact, self.training, self.loss)
        return OnlineWeights.at_reference(
            self.model,
            self._build_gold_examples(gold),
            layout=self.layout,
            token_budget=impact.token_budget,
            beta=self.objective.beta,
            every=every,
            length_normalize=impact.length_normalize,
        )

    def train(
        self,
        batch: Sequence[Example],
        *,
        work_folder: Path,
        key: str,
        online_weights: OnlineWeights | None = None,
    ) -> tuple[str, pd.DataFrame]:
        """Train in place and save the merged model; a run with the same key goes on from its last checkpoint.

        Args:
            batch: From `build_weighted_examples`.
            work_folder: Folder of the checkpoints of unfinished runs.
            key: Digest of everything that determines the result.
            online_weights: From `online_weights`; None: the examples' own weights.

        Returns:
            Folder of the complete model (`save_pretrained` with tokenizer; the adapter in ``adapter/``), to
            be moved into the catalog, and the training history.
        """
        settings = self.training
        folder = work_folder / key[:16]
        arguments = training_arguments(
            folder / "checkpoints",
            steps=count_steps(len(batch), settings.epochs, settings.batch_size, settings.accumulation_steps),
            device=self.model.device.type,
            settings=settings,
            seed=self.seed,
        )
        cached_reference = self._cache_reference(batch, folder, key)
        # Adapters can be switched off; without them, and without a cache, the reference is a second model.
        needs_copy = settings.lora is None and cached_reference is None
        frozen = copy.deepcopy(self.model).eval().requires_grad_(False) if needs_copy else None
        history = train(
            self.model,
            batch,
            objective=self.objective,
            arguments=arguments,
            layout=self.layout,
            online_weights=online_weights,
            token_budget=settings.token_budget,
            reference_model=frozen,
            cached_reference=cached_reference,
            epochs=settings.epochs,
            callbacks=[ProgressBar(), DriftGuard(settings.max_kl)],
        )
        save_trained_model(self.model, self.tokenizer, folder / "model", source=self.path)
        return str(folder / "model"), pd.DataFrame(history).reindex(columns=list(HISTORY_COLUMNS))

    def _cache_reference(
        self, batch: Sequence[Example], folder: Path, key: str
    ) -> tuple[CachedReference, Head] | None:
        """The reference on disk and its head; None: it is computed in the same batch."""
        kind = self.training.reference
        if kind == "same_batch":
            return None
        budget = self.training.token_budget
        place = folder / f"reference-{kind}"
        cached = cache_reference(
            self.model, batch, place, kind=kind, layout=self.layout, token_budget=budget, key=key
        )
        head = output_head(self.model)
        # A head that is trained itself moves away from the reference's: so this is a copy.
        weight = head.weight.detach().clone() if head.weight.requires_grad else head.weight
        return cached, replace(head, weight=weight)


def load_training_setup(
    path: str,
    model_parameters: ModelParameters,
    parameters: TrainingParameters,
    loss: LossParameters,
    *,
    seed: int,
) -> TrainingSetup:
    """Load the reference, check that its likelihoods are exact, and make it trainable.

    Args:
        path: Folder of the model.
        model_parameters: How it is loaded.
        parameters: How it is to be trained.
        loss: The hybrid loss.
        seed: Seed of adapters, sampling and order.

    Returns:
        The setup of a run.

    Raises:
        TrainingError: Parameters that exclude each other.
    """
    if model_parameters.quantize is not None and parameters.lora is None:
        raise TrainingError(
            f"`model.quantize: {model_parameters.quantize}` trains an adapter on frozen weights, and "
            "`training.lora` is null. Give it a LoRA, or set `model.quantize: null`."
        )
    model, tokenizer = load_configured_model(path, model_parameters, quantize=model_parameters.quantize)
    if parameters.autocast:
        if model.dtype != torch.float32:
            raise TrainingError(
                f"`training.autocast` multiplies in bfloat16 over weights in float32; found weights in "
                f"{model.dtype}. Set `model.dtype: float32`, or leave `training.autocast` out."
            )
        autocast(model)
    layout = choose_layout(model, pad_id=int(tokenizer.pad_token_id))
    trainable = make_trainable(model, parameters.lora, seed=seed)
    checkpoint_activations(trainable, parameters)
    objective = build_objective(loss)
    learning_rate = choose_learning_rate(parameters, model.config.get_text_config().hidden_size)
    if learning_rate != parameters.learning_rate:
        logger.info("Learning rate by the model's width: %.3g", learning_rate)
    parameters = parameters.model_copy(update={"learning_rate": learning_rate})
    return TrainingSetup(str(path), trainable, tokenizer, layout, objective, loss, parameters, seed)
