"""Parameters of `baselines`: which methods are compared, on how much, and how often."""

from typing import Any, Literal

from pydantic import Field

from realignment.parameters.base import Parameters, Share


class SetParameters(Parameters):
    """What of the triaged pairs each method trains on, and what it is measured on."""

    name: str = Field("sample", min_length=1, description="Name of the set in tables and figures")
    training_pairs: int | None = Field(
        160, ge=8, description="Pairs that a training draws, by disposition as they are; null: all"
    )
    held_out_share: float = Field(
        0.3, gt=0, lt=1, description="Share of the prompts that no method trains on, whatever the seed"
    )
    split: Literal["development", "test"] = Field(
        "development",
        description="Half of the held-out prompts that is measured on, and the split of the evaluation "
        "prompts; test is for published tables",
    )
    label_noise: Share = Field(
        0.0,
        description="Share of the verdicts on training and gold pairs that are turned round: what an oracle "
        "that errs costs. What is measured keeps its true verdicts",
    )
    split_seed: int = Field(0, description="Seed of the held-out prompts")
    held_out_pairs: int | None = Field(80, ge=1, description="Held-out pairs that are scored; null: all")
    prompts: Literal["file", "held_out", "none"] = Field(
        "file",
        description="Prompts that are answered: those of `evaluation_prompts`, or of the held-out pairs",
    )
    prompts_limit: int | None = Field(60, ge=1, description="Prompts that are answered; null: all")


class QuestionParameters(Parameters):
    """A question that a difference of two methods answers, asked before the figures are known."""

    text: str = Field(min_length=1, description="As it is printed")
    first: str = Field(min_length=1, description="The method that is expected to be better")
    second: str = Field(min_length=1, description="The method that it is compared with")
    metric: str = Field("", description="What decides; empty: the headline of the set")


class BaselinesParameters(Parameters):
    """The comparison: every method with every seed is a cell."""

    set: SetParameters = Field(SetParameters(), description="What methods train on and are measured on")
    methods: tuple[str, ...] = Field(min_length=1, description="Files of conf/base/methods")
    seeds: tuple[int, ...] = Field((1, 2, 3), min_length=1, description="One training of each method a seed")
    variants: dict[str, dict[str, Any]] = Field(
        {},
        description="Name → changes of loss, impact, gold and training, over those of the method; each is "
        "trained with every method. Empty: the methods as they are",
    )
    grid: dict[str, tuple[Any, ...]] = Field(
        {},
        description="A study: name such as loss.kl_weight → values; every combination of them is a variant",
    )
    tuned: dict[str, dict[str, Any]] = Field(
        {},
        description="Method → changes that were chosen for it on the development split, such as its learning "
        "rate; under a variant's",
    )
    reference_method: str = Field("oracle-dpo", description="The method that the others are held against")
    overrides: dict[str, Any] = Field(
        {}, description="Changes of loss, impact, gold and training for all methods, under the methods' own"
    )
    questions: tuple[QuestionParameters, ...] = Field(
        (), description="Each is answered in one sentence; those of methods without a cell are left out"
    )
    only_finished: bool = Field(
        False,
        description="Train nothing: compare the cells that are finished, and name those that are missing",
    )
    isolate: bool = Field(
        True, description="Each cell in a process of its own: one that dies is a failed cell, not a lost run"
    )
    keep_cells_of_other_code: bool = Field(
        False,
        description="Keep finished cells although the method's code has changed since; else do them anew",
    )
    capability: bool = Field(True, description="Also measure `evaluation.capability`")
    methods_folder: str = Field(min_length=1, description="Folder of the recipes")
    cells_folder: str = Field(min_length=1, description="Folder of the finished cells")
