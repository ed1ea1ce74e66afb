"""Parameters of `evaluation`: how the models before and after training are compared."""

from pydantic import Field

from realignment.parameters.base import Parameters, Share
from realignment.parameters.capability import CapabilityParameters


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
    capability: CapabilityParameters = Field(description="Check of general ability")
