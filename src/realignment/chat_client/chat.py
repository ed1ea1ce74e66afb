"""Texts from an OpenAI-compatible server: many chats at a time, a reply or a fault for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from realignment.chat_client.client import Answer, ChatServer
from realignment.chat_client.completions import Completion
from realignment.parameters import ChatParameters


@dataclass(frozen=True, slots=True)
class Request:
    """One chat, with the fields in which it differs from the server's settings.

    Attributes:
        messages: Role and content of each message.
        body: Further fields of the request, such as ``seed``, ``top_p`` or ``response_format``.
    """

    messages: list[dict[str, str]]
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """The server's reply to a chat.

    Attributes:
        text: The assistant's text; empty where there is none.
        complete: Whether the text ended by itself and was not cut at the limit of tokens.
        fault: Why there is no reply; empty where there is one.
    """

    text: str
    complete: bool
    fault: str = ""


def complete_chats(settings: ChatParameters, requests: Sequence[Request], *, section: str) -> list[Reply]:
    """Send all requests, and return one reply per request, in order.

    Args:
        settings: Server, model and limits.
        requests: The chats.
        section: The parameters that the settings are from, for messages.

    Returns:
        Replies; that of a request which fails `max_attempts` times has a fault and no text.

    Raises:
        OracleError: The server is not there, refuses the key or the model, or answers nothing at all.
    """
    bodies = [{"messages": request.messages} | request.body for request in requests]
    answers = dict(ChatServer(settings, section=section).complete(bodies))
    return [_read(answers[position]) for position in range(len(requests))]


def _read(answer: Answer) -> Reply:
    if not isinstance(answer, Completion):
        return Reply("", False, f"no reply: {answer.reason}")
    choice = answer.choices[0]
    return Reply((choice.message.content or "").strip(), choice.finish_reason != "length")
