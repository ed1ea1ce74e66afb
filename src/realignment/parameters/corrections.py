"""Who writes corrections for PUNISH pairs, who verifies them, and what they must be like."""

from typing import Literal

from pydantic import Field, model_validator

from realignment.parameters.base import Parameters, Share
from realignment.parameters.oracles import ChatParameters, OracleParameters


class QualityParameters(Parameters):
    """The gate that a machine's candidate must pass before an oracle is asked."""

    min_words: int = Field(8, ge=0, description="Shorter candidates are flawed")
    max_words: int = Field(250, ge=1, description="Longer ones are")
    min_topic: Share = Field(
        0.8, description="Least share of the other pairs that a candidate is less like than its own"
    )
    max_copied: Share = Field(
        0.5, description="Largest share of its word triples that a violating response has too"
    )
    min_distinct: Share = Field(0.7, description="Least share of distinct word triples: below, it loops")
    allow_refusal: bool = Field(False, description="true where the policy asks for bare refusals")


class CorrectionsParameters(Parameters):
    """Corrections of PUNISH pairs (method.md, section 6). What people wrote is used in any case."""

    writer: Literal["none", "model", "chat"] = Field(
        "none", description="Who writes where people have not: nobody, the reference model, or a chat server"
    )
    chat: ChatParameters | None = Field(None, description="The server of `writer: chat`")
    verifier: OracleParameters | None = Field(
        None, description="The oracle that verifies, not the writer; null: the one of `judging`"
    )
    samples: int = Field(4, ge=1, description="Candidates per pair")
    temperature: float = Field(0.8, gt=0, description="Of the samples")
    top_p: float = Field(0.95, gt=0, le=1, description="Share of the probability that samples are drawn from")
    repetition_penalty: float = Field(
        1.1, gt=0, description="Above 1 keeps a small model out of loops; `model` alone"
    )
    max_new_tokens: int = Field(200, ge=1, description="Where a candidate is cut, and then flawed")
    batch_size: int = Field(32, ge=1, description="Candidates written at a time; `model` alone")
    min_confidence: Share = Field(0.5, description="Least confidence of the verifier's verdict")
    quality: QualityParameters = Field(QualityParameters(), description="The quality gate")
    leakage_sample: int = Field(
        20,
        ge=0,
        description="Pairs corrected by people that the machine also writes for, to be compared only",
    )

    @property
    def max_words(self) -> int:
        """Words that a writer is asked for: half of its tokens at most, and what the gate lets pass."""
        return min(self.max_new_tokens // 2, self.quality.max_words)

    @model_validator(mode="after")
    def _server_is_there(self) -> "CorrectionsParameters":
        if self.writer == "chat" and self.chat is None:
            raise ValueError("`writer: chat` needs its section `chat: {base_url: …, model: …}`")
        return self
