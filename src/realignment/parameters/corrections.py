"""Parameters of `corrections`: who writes them, who verifies them, and what they must be like."""

from typing import Literal

from pydantic import Field, model_validator

from realignment.parameters.base import Parameters, Share
from realignment.parameters.oracles import ChatParameters, OracleParameters


class QualityParameters(Parameters):
    """Quality limits that a machine's candidate must pass before the oracle judges it."""

    min_words: int = Field(8, ge=0, description="A candidate with fewer words is flawed")
    max_words: int = Field(250, ge=1, description="A candidate with more words is flawed")
    min_topic: Share = Field(
        0.8,
        description="Smallest share of the other prompts that a candidate must resemble less than its own",
    )
    max_copied: Share = Field(
        0.5,
        description="Largest share of a candidate's word triples that may also be in a violating response",
    )
    min_distinct: Share = Field(
        0.7, description="Smallest share of distinct word triples; below it the text repeats itself"
    )
    allow_refusal: bool = Field(False, description="true where the policy asks for bare refusals")


class CorrectionsParameters(Parameters):
    """Corrections of PUNISH pairs (method.md, section 6). What people wrote is always used."""

    writer: Literal["none", "model", "chat"] = Field(
        "none",
        description="Who writes a correction where people wrote none: nobody, the reference model, or a chat "
        "server",
    )
    chat: ChatParameters | None = Field(None, description="The server of `writer: chat`")
    verifier: OracleParameters | None = Field(
        None, description="The oracle that verifies, not the writer; null: the one of `judging`"
    )
    samples: int = Field(4, ge=1, description="Candidates per pair")
    temperature: float = Field(0.8, gt=0, description="Sampling temperature of the candidates")
    top_p: float = Field(
        0.95, gt=0, le=1, description="Share of the probability that candidates are sampled from"
    )
    repetition_penalty: float = Field(
        1.1,
        gt=0,
        description="Above 1 keeps a small model from repeating itself; only for `writer: model`",
    )
    max_new_tokens: int = Field(
        200, ge=1, description="Tokens after which a candidate is cut, which makes it flawed"
    )
    batch_size: int = Field(32, ge=1, description="Candidates written at a time; only for `writer: model`")
    min_confidence: Share = Field(0.5, description="Smallest confidence of the verifier's verdict")
    quality: QualityParameters = Field(QualityParameters(), description="Quality limits of a candidate")
    leakage_sample: int = Field(
        20,
        ge=0,
        description="Number of pairs corrected by people for which the machine writes too, only to compare",
    )

    @property
    def max_words(self) -> int:
        """Number of words to ask a writer for: at most half of its tokens, and what the limits allow."""
        return min(self.max_new_tokens // 2, self.quality.max_words)

    @model_validator(mode="after")
    def _check_server(self) -> "CorrectionsParameters":
        if self.writer == "chat" and self.chat is None:
            raise ValueError("`writer: chat` needs its section `chat: {base_url: …, model: …}`")
        return self
