"""How an undocumented policy is inferred from the choices that were made under it."""

from typing import Literal

from pydantic import Field, model_validator

from realignment.parameters.base import Parameters, Share
from realignment.parameters.oracles import ChatParameters


class ConstitutionParameters(Parameters):
    """Principles proposed and voted on by a language model (Inverse Constitutional AI)."""

    proposing_pairs: int = Field(100, ge=1, description="Pairs that principles are proposed from")
    pairs_per_proposal: int = Field(5, ge=1, description="Pairs shown at a time")
    proposals: int = Field(3, ge=1, description="Principles asked for at a time, at most")
    clusters: int = Field(15, ge=1, description="Principles that are voted on, after merging like ones")
    voting_pairs: int = Field(200, ge=1, description="Pairs that every principle is tried on")


class PrinciplesParameters(Parameters):
    """From pairs alone to principles that explain the choices (pipeline `infer_policy`)."""

    method: Literal["features", "chat"] = Field(
        "features",
        description="features: sparse regression, no language model; chat: a model behind a server",
    )
    chat: ChatParameters | None = Field(None, description="The server of `method: chat`")
    constitution: ConstitutionParameters = Field(
        ConstitutionParameters(), description="Settings of `method: chat`"
    )
    topic_words: int = Field(0, ge=0, description="Frequent words that are features too, at most")
    folds: int = Field(5, ge=2, description="Of the cross-validation of the penalty, by prompt")
    resamples: int = Field(200, ge=20, description="Bootstrap samples of prompts: stability and intervals")
    min_stability: Share = Field(0.9, description="Least share of samples that find a principle again")
    min_support: Share = Field(0.03, description="Least share of pairs that a principle has a say in")
    min_kept: Share = Field(
        0.8,
        description="A check is derived where so many chosen responses keep it; else the rule is `judged`",
    )

    @model_validator(mode="after")
    def _server_is_there(self) -> "PrinciplesParameters":
        if self.method == "chat" and self.chat is None:
            raise ValueError("`method: chat` needs its section `chat: {base_url: …, model: …}`")
        return self
