"""Parse chat completions, with checks: servers differ, and some break off."""

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

T = TypeVar("T")
_MAX_TOKENS = 10**9
"""Counts of tokens above this are not plausible, and are ignored."""

Token = tuple[str, Sequence[tuple[str, float | None]]]
"""A token of a reply, and the alternatives at its place, with their log-probabilities in nats, if given."""


class MalformedReplyError(ValueError):
    """The server's response is not a chat completion."""


def _validate_or_none(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Return None for an invalid value: a good reply must not fail because of another field."""
    try:
        return validate(value)
    except ValidationError:
        return None


OptionalField = Annotated[T | None, WrapValidator(_validate_or_none)]
"""A field that is None where it is not given or not valid."""
_Number = Annotated[int, Field(ge=0, le=_MAX_TOKENS)]


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
    logprobs: OptionalField[_Logprobs] = None

    def tokens(self) -> list[Token]:
        """Return the reply's tokens with their alternatives; none where the server gave none."""
        content = (self.logprobs.content if self.logprobs else None) or []
        tokens: list[Token] = []
        for token in content:
            # Without a list of alternatives, the token itself is the only one.
            alternatives = [(a.token, a.logprob) for a in token.top_logprobs or [token]]
            tokens.append((token.token, alternatives))
        return tokens


class _Counts(BaseModel):
    prompt_tokens: OptionalField[_Number] = None
    completion_tokens: OptionalField[_Number] = None


class Completion(BaseModel):
    """The part of a chat completion that an oracle reads."""

    choices: list[_Choice] = Field(min_length=1)
    usage: OptionalField[_Counts] = None


def parse_completion(body: bytes) -> Completion:
    """Parse a completion from the body of a server's response.

    Args:
        body: JSON.

    Returns:
        The completion, with one choice at least.

    Raises:
        MalformedReplyError: The body is not a chat completion.
    """
    try:
        return Completion.model_validate_json(body)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"])) or "body"
        raise MalformedReplyError(
            f"expected a chat completion, and in its {field}: {problem['msg']}; found {body[:80]!r}"
        ) from error


def replace_surrogates(text: str) -> str:
    """Return the text with a question mark for each lone surrogate, which JSON allows and stores refuse."""
    return text if text.isascii() else text.encode("utf-8", errors="replace").decode()
