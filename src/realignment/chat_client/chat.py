"""Texts from a server that speaks OpenAI's chat completions: many chats at a time, each answered or not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from realignment.chat_client.client import Answer, ChatServer
from realignment.chat_client.completions import Completion
from realignment.parameters import ChatParameters


@dataclass(frozen=True, slots=True)
class Request:
    """One chat, with what differs from the settings of the server for it.

    Attributes:
        messages: Roles and contents.
        body: Further fields of the request, such as ``seed``, ``top_p`` or ``response_format``.
    """

    messages: list[dict[str, str]]
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        text: Of the assistant; empty where there is none.
        complete: It ended by itself and was not cut at the limit.
        fault: Why there is no reply; empty where there is one.
    """

    text: str
    complete: bool
    fault: str = ""


def converse(settings: ChatParameters, requests: Sequence[Request]) -> list[Reply]:
    """One reply per request, in order; a request that fails `max_attempts` times has a fault instead.

    Raises:
        OracleError: The server is not there, refuses the key or the model, or answers nothing at all.
    """
    bodies = [{"messages": request.messages} | request.body for request in requests]
    answers = dict(ChatServer(settings).complete(bodies))
    return [_read(answers[position]) for position in range(len(requests))]


def _read(answer: Answer) -> Reply:
    if not isinstance(answer, Completion):
        return Reply("", False, f"no reply: {answer.reason}")
    choice = answer.choices[0]
    return Reply((choice.message.content or "").strip(), choice.finish_reason != "length")
