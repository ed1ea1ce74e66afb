"""Parameters of an oracle: its kind, and one section of settings for each kind that has any."""

from typing import Any, Literal

from pydantic import Field, model_validator

from realignment.parameters.base import ExchangeTemplate, ModelParameters, Parameters, Share


class LocalLMParameters(ModelParameters):
    """A causal language model in this process, loaded in the same way as `model`."""

    template: Literal["chat", "llama_guard", "shieldgemma", "granite_guardian"] = Field(
        "chat", description="chat: the model's own chat template; else the native format of a guard model"
    )
    token_budget: int | None = Field(
        None,
        ge=1,
        description="Tokens per batch, besides those of the policy; null: 1024 on a CPU, 16384 on a GPU",
    )


class ServerParameters(Parameters):
    """A server that speaks OpenAI's chat completions: vLLM, SGLang, llama.cpp, Ollama or a hosted one."""

    base_url: str = Field(pattern="^https?://", description="For example http://localhost:8000/v1")
    api_key_variable: str | None = Field(
        None, description="Environment variable that holds the key; null: the server needs no key"
    )
    extra: dict[str, Any] = Field(
        {}, description="Other fields of the request, such as chat_template_kwargs; null removes a field"
    )
    concurrency: int = Field(16, ge=1, description="Largest number of concurrent requests")
    requests_per_minute: float | None = Field(
        None, gt=0, description="Rate limit of the server; null: no limit"
    )
    timeout_s: float = Field(60.0, gt=0, description="Timeout of one request in seconds")
    max_attempts: int = Field(
        6, ge=1, description="Attempts, retries included, before a request counts as failed"
    )
    prompt_price: float = Field(0.0, ge=0, description="Price of a million prompt tokens, in any currency")
    completion_price: float = Field(
        0.0, ge=0, description="Price of a million tokens of replies, in the same currency"
    )


class ChatParameters(ServerParameters):
    """A language model on a server that speaks OpenAI's chat completions, asked for verdicts or texts."""

    model: str = Field(min_length=1, description="Name of the model on that server")
    temperature: float = Field(
        0.0, ge=0, description="Sampling temperature; above 0 only where `vote` draws samples"
    )
    max_tokens: int = Field(
        256, ge=1, description="Tokens after which a reply is cut; a cut reply is unscored"
    )
    json_schema: bool = Field(True, description="Constrain replies by a JSON schema; false: by the prompt")
    logprobs: bool = Field(
        True, description="Take the confidence from the verdict's token, where the server returns it"
    )


class HumanParameters(Parameters):
    """People's verdicts, as imported by `review_import`."""

    verdicts: str = Field(
        min_length=1,
        description="A table of imported verdicts, or the folder of its versions (the newest is read)",
    )


class TextClassifierParameters(ModelParameters):
    """A text classifier: one of `train_classifier`, or any sequence classifier of transformers."""

    source: str = Field(
        min_length=1,
        description="A classifier of `train_classifier`: a file, or the folder of its versions (the newest); "
        "or a sequence classifier: a folder or Hub id",
    )
    complies_labels: tuple[str, ...] = Field(
        (), description="Labels of a sequence classifier that mean complies; all others mean violates"
    )
    template: ExchangeTemplate = Field(
        "{prompt}\n\n{response}",
        description="Text that a sequence classifier reads: {prompt}, {response}, {domain}",
    )
    max_length: int = Field(
        512, ge=8, description="Largest number of tokens of a text; of a longer one the end is read"
    )
    batch_size: int = Field(16, ge=1, description="Texts per forward pass")


LeafKind = Literal["rules", "labels", "human", "classifier", "local_lm", "chat"]
"""The kinds that judge by themselves."""


class VoteParameters(Parameters):
    """Majority of several oracles, or of several samples of one."""

    oracles: tuple["LeafKind | OracleParameters", ...] = Field(
        min_length=1,
        description="The oracles that vote: kinds, or mappings with sections of their own",
    )
    samples: int = Field(
        1, ge=1, description="Votes of each oracle; more than 1 only for `chat` at a temperature above 0"
    )
    min_agreement: Share = Field(
        0.5, description="Share of the votes that a majority must exceed; else the response is unscored"
    )


class CascadeParameters(Parameters):
    """A cheap oracle first, the next one only where the verdict is unsure."""

    oracles: tuple["LeafKind | OracleParameters", ...] = Field(
        min_length=2,
        description="From the cheapest to the best: kinds, or mappings with sections of their own",
    )
    min_confidence: Share = Field(
        0.9, description="A verdict of less confidence, or no verdict, goes to the next oracle"
    )


class OracleParameters(Parameters):
    """An oracle: its kind, and the sections that its kind needs."""

    oracle: Literal[LeafKind, "vote", "cascade"] = Field(
        description="rules: the policy's own checks; labels: the columns chosen_complies, rejected_complies; "
        "human: people's imported verdicts; classifier: a text classifier; local_lm: a language model in "
        "this process; chat: a language model on a server; vote: the majority of several; cascade: the next "
        "one where one is unsure"
    )
    human: HumanParameters | None = Field(None, description="Settings of `oracle: human`")
    classifier: TextClassifierParameters | None = Field(None, description="Settings of `oracle: classifier`")
    local_lm: LocalLMParameters | None = Field(None, description="Settings of `oracle: local_lm`")
    chat: ChatParameters | None = Field(None, description="Settings of `oracle: chat`")
    vote: VoteParameters | None = Field(None, description="Settings of `oracle: vote`")
    cascade: CascadeParameters | None = Field(None, description="Settings of `oracle: cascade`")

    @model_validator(mode="after")
    def _check_sections(self) -> "OracleParameters":
        for kind in (self.oracle, *self._named_members()):
            if kind in type(self).model_fields and getattr(self, kind) is None:
                raise ValueError(f"`{kind}` is to judge, and its section `{kind}: {{…}}` is missing")
        if self.oracle == "vote" and self.vote is not None and self.vote.samples > 1:
            self._check_samples()
        return self

    def _check_samples(self) -> None:
        for member in self.member_oracles():
            if member.oracle != "chat" or member.chat is None or not member.chat.temperature:
                raise ValueError(
                    f"several `samples` of `{member.oracle}` would all be equal: they are for `chat` at a "
                    "`temperature` above 0"
                )

    def _named_members(self) -> list[str]:
        """Members of a vote or a cascade that are given by their kind alone."""
        return [member for member in self._members() if isinstance(member, str)]

    def _members(self) -> "tuple[str | OracleParameters, ...]":
        sections = {"vote": self.vote, "cascade": self.cascade}
        section = sections.get(self.oracle)
        return section.oracles if section else ()

    def member_oracles(self) -> "tuple[OracleParameters, ...]":
        """Return the members of a vote or a cascade; one given by its kind takes the sections given here."""
        oracles = []
        for member in self._members():
            oracles.append(self.model_copy(update={"oracle": member}) if isinstance(member, str) else member)
        return tuple(oracles)

    def leaf_oracles(self) -> "tuple[OracleParameters, ...]":
        """Return the oracles that judge by themselves: this one, or the members of its members."""
        if self.oracle not in ("vote", "cascade"):
            return (self,)
        leaves: list[OracleParameters] = []
        for member in self.member_oracles():
            leaves.extend(member.leaf_oracles())
        return tuple(leaves)

    def dump_own_section(self) -> str:
        """Return the kind and the section of that kind as JSON: what another process needs to build it."""
        return self.model_dump_json(include={"oracle", self.oracle})


VoteParameters.model_rebuild()
CascadeParameters.model_rebuild()


IN_PROCESS = ("rules", "classifier", "local_lm")
"""The kinds that compute their verdicts from what they load alone, so that another process can do so too."""
