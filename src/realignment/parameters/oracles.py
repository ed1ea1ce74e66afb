"""Which oracle judges: its kind, and one section of settings for each kind that has any."""

from typing import Any, Literal

from pydantic import Field, model_validator

from realignment.parameters.base import ExchangeTemplate, ModelParameters, Parameters, Share


class LocalLMParameters(ModelParameters):
    """A causal language model in this process; loaded as `model` is."""

    template: Literal["chat", "llama_guard", "shieldgemma", "granite_guardian"] = Field(
        "chat", description="chat: the model's own chat template; else the native format of a guard model"
    )
    token_budget: int | None = Field(
        None,
        ge=1,
        description="Tokens of a batch, besides those of the policy; null: 1024 on a CPU, 16384 on a GPU",
    )


class ChatParameters(Parameters):
    """A server that speaks OpenAI's chat completions: vLLM, SGLang, llama.cpp, Ollama or a hosted one."""

    base_url: str = Field(pattern="^https?://", description="For example http://localhost:8000/v1")
    model: str = Field(min_length=1, description="Name of the model on that server")
    api_key_variable: str | None = Field(
        None, description="Environment variable that holds the key; null: the server wants none"
    )
    temperature: float = Field(0.0, ge=0, description="Above 0 only where `vote` draws samples")
    max_tokens: int = Field(256, ge=1, description="Where a reply is cut; a cut reply is unscored")
    json_schema: bool = Field(True, description="Constrain replies by a JSON schema; false: by the prompt")
    logprobs: bool = Field(True, description="Take the confidence from the verdict's token, where given")
    extra: dict[str, Any] = Field(
        {}, description="Anything else of the request, such as chat_template_kwargs; null takes a field out"
    )
    concurrency: int = Field(16, ge=1, description="Requests under way at a time")
    requests_per_minute: float | None = Field(None, gt=0, description="The server's limit; null: none")
    timeout_s: float = Field(60.0, gt=0, description="Seconds that one request may take")
    max_attempts: int = Field(6, ge=1, description="Requests for one verdict, before it is unscored")
    prompt_price: float = Field(0.0, ge=0, description="Of a million prompt tokens, in any currency")
    completion_price: float = Field(0.0, ge=0, description="Of a million tokens of replies, likewise")


class HumanParameters(Parameters):
    """People's verdicts, as `review_import` left them."""

    verdicts: str = Field(
        min_length=1, description="A table of imported verdicts, or the folder of its versions: the newest"
    )


class TextClassifierParameters(ModelParameters):
    """A text classifier: one that `train_classifier` made, or any sequence classifier of transformers."""

    source: str = Field(
        min_length=1,
        description="What `train_classifier` made: a file, or the folder of its versions (the newest); or a "
        "sequence classifier: a folder or Hub id",
    )
    complies_labels: tuple[str, ...] = Field(
        (), description="Labels of a sequence classifier that mean complies; its others mean violates"
    )
    template: ExchangeTemplate = Field(
        "{prompt}\n\n{response}",
        description="What a sequence classifier reads: {prompt}, {response}, {domain}",
    )
    max_length: int = Field(512, ge=8, description="Tokens that it reads: of a longer text the end")
    batch_size: int = Field(16, ge=1, description="Texts that it reads at a time")


Single = Literal["rules", "labels", "human", "classifier", "local_lm", "chat"]
"""The kinds that judge by themselves."""


class VoteParameters(Parameters):
    """Several oracles, or several samples of one; the majority's verdict."""

    oracles: tuple["Single | OracleParameters", ...] = Field(
        min_length=1,
        description="Who votes: kinds, or mappings with sections of their own",
    )
    samples: int = Field(1, ge=1, description="Votes of each; more than 1 only for `chat` at a temperature")
    min_agreement: Share = Field(0.5, description="Shares of the votes up to this are no majority: unscored")


class CascadeParameters(Parameters):
    """A cheap oracle first, the next only where it is unsure."""

    oracles: tuple["Single | OracleParameters", ...] = Field(
        min_length=2, description="From the cheapest to the best; as those of `vote`"
    )
    min_confidence: Share = Field(0.9, description="A verdict below this, or none, goes to the next oracle")


class OracleParameters(Parameters):
    """An oracle: its kind, and the sections that its kind needs."""

    oracle: Literal[Single, "vote", "cascade"] = Field(
        description="rules: the policy's own checks; labels: the columns chosen_complies, rejected_complies; "
        "human: people's imported verdicts; classifier: a text classifier; local_lm: a language model in "
        "this process; chat: one behind a server; vote: the majority of "
        "several; cascade: the next where one is unsure"
    )
    human: HumanParameters | None = Field(None, description="Settings of `oracle: human`")
    classifier: TextClassifierParameters | None = Field(None, description="Settings of `oracle: classifier`")
    local_lm: LocalLMParameters | None = Field(None, description="Settings of `oracle: local_lm`")
    chat: ChatParameters | None = Field(None, description="Settings of `oracle: chat`")
    vote: VoteParameters | None = Field(None, description="Settings of `oracle: vote`")
    cascade: CascadeParameters | None = Field(None, description="Settings of `oracle: cascade`")

    @model_validator(mode="after")
    def _sections_are_there(self) -> "OracleParameters":
        for kind in (self.oracle, *self._named_members()):
            if kind in type(self).model_fields and getattr(self, kind) is None:
                raise ValueError(f"`{kind}` is asked to judge and its section `{kind}: {{…}}` is missing")
        if self.oracle == "vote" and self.vote is not None and self.vote.samples > 1:
            self._check_samples()
        return self

    def _check_samples(self) -> None:
        for member in self.members():
            if member.oracle != "chat" or member.chat is None or not member.chat.temperature:
                raise ValueError(
                    f"several `samples` of `{member.oracle}` would all be equal: they are for `chat` at a "
                    "`temperature` above 0"
                )

    def _named_members(self) -> list[str]:
        section = {"vote": self.vote, "cascade": self.cascade}.get(self.oracle)
        return [member for member in section.oracles if isinstance(member, str)] if section else []

    def members(self) -> "tuple[OracleParameters, ...]":
        """The oracles that a vote or a cascade asks; a kind by its name takes the sections given here."""
        section = {"vote": self.vote, "cascade": self.cascade}.get(self.oracle)
        named = section.oracles if section else ()
        return tuple(
            self.model_copy(update={"oracle": member}) if isinstance(member, str) else member
            for member in named
        )

    def singles(self) -> "tuple[OracleParameters, ...]":
        """The oracles that judge by themselves: this one, or the members of its members."""
        if self.oracle not in ("vote", "cascade"):
            return (self,)
        return tuple(single for member in self.members() for single in member.singles())

    def alone(self) -> str:
        """Its kind and the section of its kind, as JSON: what another process needs to build it."""
        return self.model_dump_json(include={"oracle", self.oracle})


VoteParameters.model_rebuild()
CascadeParameters.model_rebuild()


IN_PROCESS = ("rules", "classifier", "local_lm")
"""The kinds that compute their verdicts, and need nothing but what they load: others can do so for them."""
