"""What is read of a server's chat completion: checked, for servers differ and some break off."""

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

T = TypeVar("T")
_MOST_TOKENS = 10**9

Token = tuple[str, Sequence[tuple[str, float | None]]]
"""A token of a reply, and the alternatives at its place, with their log-probabilities where given."""


class MalformedReplyError(ValueError):
    """What the server sent is not a chat completion."""


def _or_none(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    """None for what cannot be read: a good reply is not thrown away for what stands beside it."""
    try:
        return read(value)
    except ValidationError:
        return None


Perhaps = Annotated[T | None, WrapValidator(_or_none)]
"""What is read where it can be, and None where it is not given or cannot be read."""
_Number = Annotated[int, Field(ge=0, le=_MOST_TOKENS)]


class _Alternative(BaseModel):
    token: str
    logprob: float | None = None  # null, NaN and infinities occur: see `oracles.replies.verdict_confidence`


class _Token(_Alternative):
    top_logprobs: list[_Alternative] | None = None


class _Logprobs(BaseModel):
    content: list[_Token] | None = None


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: Perhaps[_Logprobs] = None

    def tokens(self) -> list[Token]:
        """The reply's tokens with their alternatives; empty where the server gave none."""
        given = (self.logprobs.content if self.logprobs else None) or []
        return [(t.token, [(a.token, a.logprob) for a in t.top_logprobs or [t]]) for t in given]


class _Counts(BaseModel):
    prompt_tokens: Perhaps[_Number] = None
    completion_tokens: Perhaps[_Number] = None


class Completion(BaseModel):
    """The part of a chat completion that an oracle reads."""

    choices: list[_Choice] = Field(min_length=1)
    usage: Perhaps[_Counts] = None


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


def well_formed(text: str) -> str:
    """The text, with a question mark for half a surrogate pair, which JSON can say and no store can hold."""
    return text if text.isascii() else text.encode("utf-8", errors="replace").decode()
