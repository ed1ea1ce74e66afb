"""Every parameter, typed, checked before any node runs. Kedro builds them from `conf/*/parameters_*.yml`."""

from pydantic import Field

from realignment.parameters.base import Parameters


class CapabilityParameters(Parameters):
    """General ability, by lm-evaluation-harness."""

    questions: str | None = Field(description="JSON Lines with question, choices, answer; null: none")
    tasks: tuple[str, ...] = Field((), description="Tasks of lm-evaluation-harness, by name")
    batch_size: int = Field(32, ge=1, description="Sequences at a time")
    limit: int | None = Field(None, ge=1, description="At most so many questions a task; null: all")


class EvaluationParameters(Parameters):
    """How before and after are compared."""

    max_new_tokens: int = Field(80, ge=1, description="Where an answer is cut")
    batch_size: int = Field(32, ge=1, description="Prompts answered at a time")
    token_budget: int = Field(2048, ge=1, description="Tokens of a batch of held-out pairs")
    repetition_penalty: float = Field(1.0, gt=0, description="Above 1 keeps a small model out of loops")
    folds: int = Field(5, ge=2, description="Of the cross-validation of the classifier that judges answers")
    capability: CapabilityParameters = Field(description="The check of general ability")
