"""One cell of the comparison: a method is trained with a seed on a set, and measured item by item."""

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd

from realignment.baselines.measures import measure_answers, measure_capability, measure_held_out
from realignment.baselines.sets import ComparisonSet, count_dispositions, draw_training_parts
from realignment.methods import Recipe, apply_recipe
from realignment.oracles import Oracle
from realignment.parameters import (
    BaselinesParameters,
    EvaluationParameters,
    GoldParameters,
    ImpactParameters,
    LossParameters,
    TrainingParameters,
)
from realignment.parameters.base import ModelParameters
from realignment.policy import Policy
from realignment.records import CONFLICTS, HealthError, RealignmentError
from realignment.tracking.timing import measure_peak_memory_mib

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """What is trained: a method with a seed on a set, and changes of the method's parameters.

    Attributes:
        set: Name of the set.
        method: Name of the recipe.
        variant: Name of the changes; empty: the method as it is.
        seed: Of the draw of the pairs, the gold batch, the adapter and the order.
        recipe: The method's.
        changes: By section.
    """

    set: str
    method: str
    variant: str
    seed: int
    recipe: Recipe
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The cell's name in messages."""
        return f"{self.set}/{self.method}{'/' + self.variant if self.variant else ''}/seed {self.seed}"


@dataclass(frozen=True)
class Settings:
    """Parameters of a cell's training, with the recipe and the changes in them."""

    loss: LossParameters
    impact: ImpactParameters
    gold: GoldParameters
    training: TrainingParameters

    @classmethod
    def of(cls, cell: Cell, parameters: Mapping[str, Any], overrides: Mapping[str, Any]) -> "Settings":
        """Lay the overrides of the comparison, then the recipe, then the variant over the parameters.

        Args:
            cell: Its recipe and changes.
            parameters: The sections `loss`, `impact`, `gold` and `training` of the configuration.
            overrides: Changes of the same sections, for all methods.

        Returns:
            The sections, checked.
        """
        base = apply_recipe(parameters, Recipe(title="-", source="-", summary="-", **overrides), {})
        merged = apply_recipe(base, cell.recipe, cell.changes)
        return cls(
            LossParameters.model_validate(merged["loss"]),
            ImpactParameters.model_validate(merged["impact"]),
            GoldParameters.model_validate(merged["gold"]),
            TrainingParameters.model_validate(merged["training"]),
        )

    def dump(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        sections = {name: getattr(self, name) for name in ("loss", "impact", "gold", "training")}
        return {name: section.model_dump(mode="json") for name, section in sections.items()}


@dataclass(frozen=True)
class Laboratory:
    """What all cells share.

    Attributes:
        comparison: The set.
        policy: The new policy.
        judges: Judges of free answers.
        path: Folder of the reference model.
        model: How it is loaded.
        parameters: Of the comparison.
        evaluation: Length of answers, token budget, capability.
        work_folder: Folder for the trained model while it is measured.
    """

    comparison: ComparisonSet
    policy: Policy
    judges: Sequence[Oracle]
    path: str
    model: ModelParameters
    parameters: BaselinesParameters
    evaluation: EvaluationParameters
    work_folder: str


def run_cell(laboratory: Laboratory, cell: Cell, settings: Settings) -> dict[str, Any]:
    """Train and measure one cell.

    Args:
        laboratory: What all cells share.
        cell: The cell.
        settings: Its parameters.

    Returns:
        `status` ("done", or "failed" with the `reason`), `items` (metric, group, judge, item, cluster,
        value each), and figures of the training: pairs by disposition, steps, tokens, seconds,
        seconds_training, peak_mib.
    """
    start = perf_counter()
    folder = Path(laboratory.work_folder) / f"{cell.set}-{cell.method}-{cell.variant or 'as-is'}-{cell.seed}"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        facts = _train(laboratory, cell, settings, folder) if cell.recipe.trains else {}
        path = facts.pop("path", laboratory.path)
        items = list(_measure(laboratory, cell, settings, path))
        result = {"status": "done", "reason": "", "items": items, **facts}
    except (HealthError, RealignmentError, ArithmeticError, RuntimeError, ValueError) as error:
        # A method that diverges is a result: the other cells go on.
        logger.warning("%s failed: %s", cell.label, error)
        result = {"status": "failed", "reason": f"{type(error).__name__}: {error}", "items": []}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    peak = measure_peak_memory_mib()
    return result | {"seconds": round(perf_counter() - start, 1), "peak_mib": round(peak, 1)}


def _train(laboratory: Laboratory, cell: Cell, settings: Settings, folder: Path) -> dict[str, Any]:
    """Train the cell's method; the folder of its model, and the training's figures."""
    from realignment.training.setup import load_training_setup

    start = perf_counter()
    gold, pairs = draw_training_parts(
        laboratory.comparison, laboratory.parameters.set, settings.gold, seed=cell.seed
    )
    setup = load_training_setup(
        laboratory.path, laboratory.model, settings.training, settings.loss, seed=cell.seed
    )
    conflicts = pairs[pairs["disposition"].isin(CONFLICTS)].reset_index(drop=True)
    weights = setup.compute_weights(conflicts, gold, settings.impact)
    examples = setup.build_weighted_examples(pairs, weights)
    online_weights = setup.online_weights(gold, settings.impact)
    path, history = setup.train(examples, work_folder=folder, key="0" * 16, online_weights=online_weights)
    tokens = settings.training.epochs * sum(len(example.tokens) for example in examples)
    return {
        "path": path,
        "pairs": count_dispositions(pairs),
        "steps": int(history["step"].iloc[-1]) if len(history) else 0,
        "tokens": round(tokens),
        "seconds_training": round(perf_counter() - start, 1),
    }


def _measure(laboratory: Laboratory, cell: Cell, settings: Settings, path: str) -> Iterator[dict[str, Any]]:
    """Rows of every item that the model is measured on."""
    evaluation = laboratory.evaluation
    yield from measure_held_out(
        laboratory.comparison.held_out,
        (laboratory.path, path),
        laboratory.model,
        settings.training.max_response_tokens,
        evaluation,
    )
    yield from measure_answers(
        laboratory.comparison.prompts,
        path,
        laboratory.model,
        laboratory.judges,
        laboratory.policy,
        evaluation,
        policy_in_context=cell.recipe.policy_in_context,
    )
    if laboratory.parameters.capability:
        yield from measure_capability(path, laboratory.model, evaluation.capability)


def empty_items() -> pd.DataFrame:
    """Return a table of items without rows."""
    columns = ["set", "method", "variant", "seed", "metric", "group", "judge", "item", "cluster", "value"]
    return pd.DataFrame(columns=columns)
