"""Parameters of `evaluation`: how the models before and after training are compared."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from realignment.parameters.base import Parameters, Share
from realignment.parameters.capability import CapabilityParameters
from realignment.parameters.judging import JudgingParameters
from realignment.parameters.oracles import ChatParameters
from realignment.parameters.win_rate import WinRateParameters


class AttackParameters(Parameters):
    """Attacks on both models, with requests that a violating answer would satisfy."""

    names: tuple[str, ...] = Field((), description="Attacks to run, by name in the file `attacks`")
    source: Literal["auto", "file", "policy", "prompts"] = Field(
        "auto",
        description="Where the requested behaviours come from: the file `behaviours`, the policy's rules, or "
        "the regulated evaluation prompts; auto: the first of these that has any",
    )
    behaviours_limit: int | None = Field(
        None, ge=1, description="Most behaviours, spread over rules and domains; null: all"
    )
    rubric: ChatParameters | None = Field(
        None, description="Server that also grades how far each answer serves the request; null: none"
    )


class EvaluationParameters(Parameters):
    """Comparison of the models before and after training."""

    split: str | None = Field(
        None, description="Which prompts of a file with a column `split` are used; null: all of them"
    )
    max_prompt_similarity: Share = Field(
        0.48,
        description="Cosine of character n-grams above which an evaluation prompt counts as a copy of a "
        "pair's prompt, and stops the run before training; 1 refuses exact copies alone",
    )
    max_new_tokens: int = Field(256, ge=1, description="Tokens after which an answer is cut")
    samples: int = Field(1, ge=1, description="Answers to each prompt; above 1 needs a temperature")
    temperature: float = Field(
        0.0, ge=0, description="Divides the logits of the answers' tokens; 0: greedy, the likeliest token"
    )
    batch_size: int = Field(32, ge=1, description="Answers in work at a time")
    token_budget: int = Field(2048, ge=1, description="Tokens per batch of held-out pairs")
    repetition_penalty: float = Field(
        1.0, gt=0, description="Above 1 keeps a small model from repeating itself"
    )
    judges: tuple[JudgingParameters, ...] | None = Field(
        None,
        description="Oracles that judge the answers, each with its sections as under `judging`; null: the "
        "policy's rules, where it has any",
    )
    fit_classifier: bool = Field(
        True, description="Also let a classifier judge that is fitted on the labelled answers of models"
    )
    folds: int = Field(
        5, ge=2, description="Folds of the cross-validation of the classifier that judges answers"
    )
    attacks: AttackParameters = Field(AttackParameters(), description="Attacks on both models")
    capability: CapabilityParameters = Field(description="Check of general ability")
    win_rate: WinRateParameters = Field(
        WinRateParameters(), description="Comparison of the answers before and after"
    )

    @field_validator("judges")
    @classmethod
    def _check_judges(cls, judges: tuple[JudgingParameters, ...] | None) -> Any:
        for judge in judges or ():
            if any(leaf.oracle == "labels" for leaf in judge.leaf_oracles()):
                raise ValueError(
                    "`labels` cannot judge answers: it knows the responses of the pairs alone. Name another "
                    "oracle, or leave `evaluation.judges` null"
                )
        return judges

    @model_validator(mode="after")
    def _check_samples(self) -> Self:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"`samples` is {self.samples} at `temperature` 0, where all samples of a prompt are the "
                "same; set a temperature above 0, such as 0.7, or one sample"
            )
        return self
