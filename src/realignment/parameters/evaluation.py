"""Parameters of `evaluation`: how the models before and after training are compared."""

from typing import Self

from pydantic import Field, model_validator

from realignment.parameters.base import Parameters, Share


class CapabilityParameters(Parameters):
    """General ability, measured by lm-evaluation-harness."""

    questions: str | None = Field(
        description="File of JSON Lines with question, choices, answer; null: no such questions"
    )
    tasks: tuple[str, ...] = Field((), description="Tasks of lm-evaluation-harness, by name")
    batch_size: int = Field(32, ge=1, description="Sequences per forward pass")
    limit: int | None = Field(None, ge=1, description="Largest number of questions per task; null: all")


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
    folds: int = Field(
        5, ge=2, description="Folds of the cross-validation of the classifier that judges answers"
    )
    capability: CapabilityParameters = Field(description="Check of general ability")

    @model_validator(mode="after")
    def _check_samples(self) -> Self:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"`samples` is {self.samples} at `temperature` 0, where all samples of a prompt are the "
                "same; set a temperature above 0, such as 0.7, or one sample"
            )
        return self
