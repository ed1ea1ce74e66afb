"""Parameters of `infer_policy`: how principles are inferred from the choices made under a policy."""

from typing import Literal

from pydantic import Field, model_validator

from realignment.parameters.base import Parameters, Share
from realignment.parameters.oracles import ChatParameters


class ConstitutionParameters(Parameters):
    """Principles proposed and voted on by a language model (Inverse Constitutional AI)."""

    proposing_pairs: int = Field(100, ge=1, description="Pairs from which principles are proposed")
    pairs_per_proposal: int = Field(5, ge=1, description="Pairs shown in one request")
    proposals: int = Field(3, ge=1, description="Largest number of principles proposed in one reply")
    clusters: int = Field(15, ge=1, description="Principles that are voted on, after similar ones are merged")
    voting_pairs: int = Field(200, ge=1, description="Pairs on which every principle is tested")


class PrinciplesParameters(Parameters):
    """Inference of principles that explain the choices in the pairs (pipeline `infer_policy`)."""

    method: Literal["features", "chat"] = Field(
        "features",
        description="features: sparse regression, no language model; chat: a language model on a server",
    )
    chat: ChatParameters | None = Field(None, description="The server of `method: chat`")
    constitution: ConstitutionParameters = Field(
        ConstitutionParameters(), description="Settings of `method: chat`"
    )
    topic_words: int = Field(0, ge=0, description="Largest number of frequent words that are features too")
    folds: int = Field(
        5, ge=2, description="Folds of the cross-validation that chooses the penalty, split by prompt"
    )
    resamples: int = Field(
        200, ge=20, description="Bootstrap samples of prompts, for stability and intervals"
    )
    min_stability: Share = Field(
        0.9, description="Smallest share of bootstrap samples in which a principle is found again"
    )
    min_support: Share = Field(
        0.03, description="Smallest share of pairs whose two responses a principle distinguishes"
    )
    min_kept: Share = Field(
        0.8,
        description="A rule gets a check if at least this share of the chosen responses passes it; else "
        "it is `judged`",
    )

    @model_validator(mode="after")
    def _check_server(self) -> "PrinciplesParameters":
        if self.method == "chat" and self.chat is None:
            raise ValueError("`method: chat` needs its section `chat: {base_url: …, model: …}`")
        return self
