"""What is read of a server's chat completion: checked, for servers differ and some break off."""

from pydantic import BaseModel, Field, ValidationError

from realignment.oracles.asking import MalformedReplyError
from realignment.oracles.replies import Token


class _Alternative(BaseModel):
    token: str
    logprob: float


class _Token(_Alternative):
    top_logprobs: list[_Alternative] | None = None


class _Logprobs(BaseModel):
    content: list[_Token] | None = None


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None

    def tokens(self) -> list[Token]:
        """The reply's tokens with their alternatives; empty where the server gave none."""
        given = (self.logprobs.content if self.logprobs else None) or []
        return [(t.token, [(a.token, a.logprob) for a in t.top_logprobs or [t]]) for t in given]


class _Counts(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Completion(BaseModel):
    """The part of a chat completion that an oracle reads."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Counts | None = None


def parse_completion(body: bytes) -> Completion:
    """A completion from the body of the server's answer.

    Raises:
        MalformedReplyError: It is none.
    """
    try:
        return Completion.model_validate_json(body)
    except ValidationError as error:
        found = error.errors()[0]
        where = ".".join(map(str, found["loc"])) or "body"
        raise MalformedReplyError(
            f"expected a chat completion, and in its {where}: {found['msg']}; found {body[:80]!r}"
        ) from error
