"""Parameters of `evaluation`: how the models before and after training are compared."""

from typing import Literal

from pydantic import Field

from realignment.parameters.base import Parameters, Share
from realignment.parameters.oracles import ChatParameters


class CapabilityParameters(Parameters):
    """General ability, measured by lm-evaluation-harness."""

    questions: str | None = Field(
        description="File of JSON Lines with question, choices, answer; null: no such questions"
    )
    tasks: tuple[str, ...] = Field((), description="Tasks of lm-evaluation-harness, by name")
    batch_size: int = Field(32, ge=1, description="Sequences per forward pass")
    limit: int | None = Field(None, ge=1, description="Largest number of questions per task; null: all")


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
    max_new_tokens: int = Field(80, ge=1, description="Tokens after which an answer is cut")
    batch_size: int = Field(32, ge=1, description="Prompts answered at a time")
    token_budget: int = Field(2048, ge=1, description="Tokens per batch of held-out pairs")
    repetition_penalty: float = Field(
        1.0, gt=0, description="Above 1 keeps a small model from repeating itself"
    )
    folds: int = Field(
        5, ge=2, description="Folds of the cross-validation of the classifier that judges answers"
    )
    attacks: AttackParameters = Field(AttackParameters(), description="Attacks on both models")
    capability: CapabilityParameters = Field(description="Check of general ability")
