"""Parameters of `evaluation`: how the models before and after training are compared."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from realignment.parameters.base import Parameters, Share
from realignment.parameters.capability import CapabilityParameters
from realignment.parameters.judging import JudgingParameters
from realignment.parameters.oracles import ChatParameters, ServerParameters
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


class ServedModels(Parameters):
    """Names of the two models on their server."""

    before: str = Field(min_length=1, description="Name of the model before")
    after: str = Field(min_length=1, description="Name of the model after")


class AnswerServerParameters(ServerParameters):
    """A server that answers the prompts in the place of models in this process."""

    model: ServedModels = Field(description="Names of both models on the server")
    base_url_after: str | None = Field(
        None,
        pattern="^https?://",
        description="Server of the model after, where it is another one; null: `base_url`",
    )

    def describe_models(self) -> tuple[str, str]:
        """Return name and server of both models, before and after."""
        after = self.base_url_after or self.base_url
        return f"{self.model.before} at {self.base_url}", f"{self.model.after} at {after}"

    def of_side(self, side: str, *, temperature: float, max_tokens: int) -> ChatParameters:
        """Return the settings of one model's server.

        Args:
            side: "before" or "after".
            temperature: Of the answers; 0: greedy.
            max_tokens: Tokens after which an answer is cut.
        """
        settings = self.model_dump(exclude={"model", "base_url_after"})
        if side == "after" and self.base_url_after is not None:
            settings["base_url"] = self.base_url_after
        model = getattr(self.model, side)
        return ChatParameters(**settings, model=model, temperature=temperature, max_tokens=max_tokens)


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
    engine: Literal["local", "chat"] = Field(
        "local",
        description="Who answers the prompts: local: both models in this process; chat: a server, for large "
        "models",
    )
    chat: AnswerServerParameters | None = Field(None, description="The server of `engine: chat`")
    answer_store: str | None = Field(
        None, description="SQLite file that keeps the answers of `engine: chat`; null: they are not kept"
    )
    refresh: bool = Field(
        False, description="Ask the server again for answers that the store has, and replace them"
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

    @property
    def server(self) -> AnswerServerParameters | None:
        """The server that answers the prompts; None: models in this process do."""
        return self.chat if self.engine == "chat" else None

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

    @model_validator(mode="after")
    def _check_engine(self) -> Self:
        if self.engine == "chat" and self.chat is None:
            raise ValueError(
                "`engine: chat` needs its section `chat: {base_url: …, model: {before: …, after: …}}`"
            )
        if self.engine == "chat" and self.repetition_penalty != 1:
            raise ValueError(
                f"`repetition_penalty` is {self.repetition_penalty:g}, which is for `engine: local`: chat "
                "completions have no such field. Set it to 1, and where the server has a penalty of its own, "
                "such as vLLM's, give it in `chat.extra`"
            )
        return self
