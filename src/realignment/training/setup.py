"""A model with its tokenizer and the settings of a run: what the stages `impact` and `training` work with."""

import copy
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from realignment.impact.scores import gradient_norm
from realignment.impact.scoring import compute_gold_gradient, precondition, score_conflicts
from realignment.impact.weights import check_scores, to_table, weigh
from realignment.likelihood.backbone import autocast, output_head, scoring_mode
from realignment.likelihood.head import Head
from realignment.likelihood.layout_probe import choose_layout
from realignment.likelihood.log_probs import response_log_probabilities
from realignment.likelihood.packing import Layout
from realignment.model.adapters import save_trained, trainable_model
from realignment.model.loading import load_configured
from realignment.objective import examples
from realignment.objective.hybrid import Example, Objective
from realignment.parameters import ImpactParameters, LossParameters, TrainingParameters
from realignment.parameters.base import ModelParameters
from realignment.records import DataError
from realignment.training.callbacks import DriftGuard, ProgressBar
from realignment.training.online_weights import FreshWeights, check_options
from realignment.training.reference import KeptReference, keep_reference
from realignment.training.run import (
    HISTORY_COLUMNS,
    TrainingError,
    checkpoint_activations,
    count_steps,
    train,
    training_arguments,
)

logger = logging.getLogger(__name__)


def to_objective(loss: LossParameters) -> Objective:
    """The knobs of the hybrid loss."""
    return Objective(
        beta=loss.beta,
        invert=loss.invert,
        suppress=loss.punish,
        punish_weight=loss.punish_weight,
        kl_weight=loss.kl_weight,
        retain_weight=loss.retain_weight,
        anchor_weight=loss.anchor_weight,
        error_rate=0.0 if loss.error_rate == "audited" else loss.error_rate,
    )


@dataclass(frozen=True)
class Workbench:
    """The trainable model at θ_ref, and how it is to be trained; `path` is where it was loaded from."""

    path: str
    model: Any
    tokenizer: Any
    layout: Layout
    objective: Objective
    loss: LossParameters
    training: TrainingParameters
    seed: int

    def build(self, pairs: pd.DataFrame) -> list[Example]:
        """Examples of the pairs; see `objective.examples.build_examples`."""
        return examples.build_examples(
            pairs,
            self.tokenizer,
            use_corrections=self.loss.use_corrections,
            affirm=self.loss.retain_weight > 0,
            audited=self.loss.invert == "robust" and self.loss.error_rate == "audited",
            max_response_tokens=self.training.max_response_tokens,
        )

    def weigh(
        self, conflicts: pd.DataFrame, gold: pd.DataFrame, parameters: ImpactParameters
    ) -> pd.DataFrame:
        """The table `impact_weights` for the given conflicts."""
        limit, budget = self.training.max_response_tokens, parameters.token_budget
        gold_examples = examples.build_gold_examples(gold, self.tokenizer, max_response_tokens=limit)
        common: dict[str, Any] = {"layout": self.layout, "token_budget": budget}
        direction = compute_gold_gradient(self.model, gold_examples, self.objective, **common)
        logger.info("Gold gradient over %d pairs, norm %.3g", len(gold), gradient_norm(direction))
        batch = self.build(conflicts)
        if parameters.curvature != "identity":
            drawn = torch.randperm(len(batch), generator=torch.Generator().manual_seed(self.seed))
            direction = precondition(
                self.model,
                direction,
                [batch[i] for i in drawn[: parameters.curvature_pairs].tolist()],
                curvature=parameters.curvature,
                damping=parameters.damping,
                seed=self.seed,
                **common,
            )
        scored = score_conflicts(
            self.model,
            batch,
            direction,
            self.objective,
            length_normalize=parameters.length_normalize,
            progress="Impact scores",
            engine=parameters.engine,
            **common,
        )
        if parameters.normalize != "uniform":
            scores = torch.tensor([score for score, _ in scored])
            check_scores(scores, max_negative_share=parameters.max_negative_share)
        weighed = weigh(
            batch,
            scored,
            list(conflicts["disposition"]),
            normalize=parameters.normalize,
            winsorize=parameters.winsorize,
        )
        return to_table(weighed, [score for score, _ in scored], list(conflicts["disposition"]))

    def with_weights(self, pairs: pd.DataFrame, weights: pd.DataFrame) -> list[Example]:
        """Examples of all training pairs with their impact weights and reference log-probabilities.

        Raises:
            DataError: A conflict has no impact weight.
        """
        keyed = {row["pair_id"]: row for row in weights.to_dict("records")}
        batch, references = self.build(pairs), {}
        for example in batch:
            names = [f"reference_{column}" for column in examples.RESPONSES[example.treatment]]
            if (row := keyed.get(example.pair_id)) is not None:
                references[example.pair_id] = tuple(float(row[name]) for name in names)
        missing = [e.pair_id for e in batch if e.treatment.is_conflict and e.pair_id not in references]
        unknown = [pair_id for pair_id, values in references.items() if any(map(math.isnan, values))]
        if missing or unknown:
            raise DataError(
                f"{len(missing) + len(unknown)} conflicts have no impact weight for how they are to be "
                f"trained (first: {(missing + unknown)[0]}). Run `--pipelines impact` again with the same "
                "`loss.use_corrections`."
            )
        return [
            replace(e, weight=keyed[e.pair_id]["weight"], reference=references[e.pair_id])
            if e.pair_id in references
            else e
            for e in batch
        ]

    def fresh_weights(self, gold: pd.DataFrame, impact: ImpactParameters) -> FreshWeights | None:
        """What takes weights anew in every step; None where the training parameters ask for none."""
        every, limit = self.training.fresh_weights_every, self.training.max_response_tokens
        if every is None:
            return None
        check_options(impact, self.training)
        tokens = [
            e.tokens for e in examples.build_gold_examples(gold, self.tokenizer, max_response_tokens=limit)
        ]
        batches = [
            self.layout([tokens[i] for i in members]).to(self.model.device)
            for members in self.layout.batches(tokens, budget=impact.token_budget)
        ]
        # Now, before any step, the model is the reference.
        with torch.no_grad(), scoring_mode(self.model):
            references = [response_log_probabilities(self.model, rows) for rows in batches]
        return FreshWeights(batches, references, self.objective.beta, every, impact.length_normalize)

    def train(
        self, batch: Sequence[Example], *, work_folder: Path, key: str, fresh: FreshWeights | None = None
    ) -> tuple[str, pd.DataFrame]:
        """Train in place and save the merged model; a run with the same key goes on from its last checkpoint.

        Args:
            batch: From `with_weights`.
            work_folder: Where checkpoints of unfinished runs are kept.
            key: Digest of everything that determines the result.
            fresh: From `fresh_weights`.

        Returns:
            Folder of the complete model (a `save_pretrained` folder with tokenizer; the adapter in
            ``adapter/``), to be moved into the catalog, and the training history.
        """
        settings, folder = self.training, work_folder / key[:16]
        batches = (settings.epochs, settings.batch_size, settings.accumulation_steps)
        arguments = training_arguments(
            folder / "checkpoints",
            steps=count_steps(len(batch), *batches),
            device=self.model.device.type,
            settings=settings,
            seed=self.seed,
        )
        kept, copied = self._keep_reference(batch, folder, key), None
        if settings.lora is None and kept is None:
            copied = copy.deepcopy(self.model).eval().requires_grad_(False)
        guard = DriftGuard(settings.max_kl)
        history = train(
            self.model,
            batch,
            objective=self.objective,
            arguments=arguments,
            layout=self.layout,
            fresh=fresh,
            token_budget=settings.token_budget,
            reference_model=copied,
            kept_reference=kept,
            epochs=settings.epochs,
            callbacks=[ProgressBar(), guard],
        )
        save_trained(self.model, self.tokenizer, folder / "model", source=self.path)
        return str(folder / "model"), pd.DataFrame(history).reindex(columns=list(HISTORY_COLUMNS))

    def _keep_reference(
        self, batch: Sequence[Example], folder: Path, key: str
    ) -> tuple[KeptReference, Head] | None:
        kind = self.training.reference
        if kind == "same_batch":
            return None
        kept = keep_reference(
            self.model,
            batch,
            folder / f"reference-{kind}",
            kind=kind,
            layout=self.layout,
            token_budget=self.training.token_budget,
            key=key,
        )
        head = output_head(self.model)
        trained = head.weight.requires_grad
        return kept, replace(head, weight=head.weight.detach().clone() if trained else head.weight)


def open_workbench(
    path: str,
    model_parameters: ModelParameters,
    parameters: TrainingParameters,
    loss: LossParameters,
    *,
    seed: int,
) -> Workbench:
    """Load the reference, check that its likelihoods are exact, and switch on what is to be trained."""
    if model_parameters.quantize is not None and parameters.lora is None:
        raise TrainingError(
            f"`model.quantize: {model_parameters.quantize}` trains an adapter on frozen weights, and "
            "`training.lora` is null. Give it a LoRA, or set `model.quantize: null`."
        )
    model, tokenizer = load_configured(path, model_parameters, quantize=model_parameters.quantize)
    if parameters.autocast:
        if model.dtype != torch.float32:
            raise TrainingError(
                f"`training.autocast` multiplies in bfloat16 over weights in float32; found weights in "
                f"{model.dtype}. Set `model.dtype: float32`, or leave `training.autocast` out."
            )
        autocast(model)
    layout = choose_layout(model, pad_id=int(tokenizer.pad_token_id))
    trainable = trainable_model(model, parameters.lora, seed=seed)
    checkpoint_activations(trainable, parameters)
    return Workbench(str(path), trainable, tokenizer, layout, to_objective(loss), loss, parameters, seed)
