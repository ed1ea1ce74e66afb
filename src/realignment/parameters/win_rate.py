"""Parameters of win rates: who compares the answers of two models, and how."""

from typing import Literal

from pydantic import Field, model_validator

from realignment.parameters.base import Parameters
from realignment.parameters.oracles import ChatParameters, LocalLMParameters


class SeverityWeights(Parameters):
    """How much a broken rule counts; a more severe one outweighs two of the step below."""

    low: float = Field(1.0, ge=0, description="Weight of a broken rule of low severity")
    medium: float = Field(3.0, ge=0, description="Weight of a broken rule of medium severity")
    high: float = Field(9.0, ge=0, description="Weight of a broken rule of high severity")


class WinRateParameters(Parameters):
    """Blind comparison of the answers of two models to the same prompts."""

    judge: Literal["rules", "chat", "local_lm"] | None = Field(
        None,
        description="Who says which answer is better: rules: fewer and less severe rules broken; chat, "
        "local_lm: a language model, in both orders; null: nobody",
    )
    severity_weights: SeverityWeights = Field(
        SeverityWeights(), description="How much broken rules count for `judge: rules`, by their severity"
    )
    tie_break: Literal["tie", "shorter", "longer"] = Field(
        "tie", description="Which of two answers whose broken rules weigh the same wins, for `judge: rules`"
    )
    chat: ChatParameters | None = Field(None, description="Settings of `judge: chat`")
    local_lm: LocalLMParameters | None = Field(None, description="Settings of `judge: local_lm`")
    verdict_store: str | None = Field(
        None, description="SQLite file that caches the answers of a language model; null: no cache"
    )
    refresh: bool = Field(False, description="Ask again for what the store has")
    resamples: int = Field(2000, ge=100, description="Bootstrap resamples of prompts, for the intervals")
    people: int | None = Field(
        None,
        ge=1,
        description="Largest number of prompts that people are asked about (`win_rate_export`), drawn by the "
        "seed; null: all",
    )

    @model_validator(mode="after")
    def _check_sections(self) -> "WinRateParameters":
        if self.judge in ("chat", "local_lm") and getattr(self, self.judge) is None:
            raise ValueError(
                f"`{self.judge}` is to compare, and its section `{self.judge}: {{…}}` is missing"
            )
        if self.judge == "local_lm" and self.local_lm is not None and self.local_lm.template != "chat":
            raise ValueError(
                f"a guard model (`template: {self.local_lm.template}`) judges one answer and cannot compare "
                "two; take an instruction-tuned model with `template: chat`"
            )
        return self
