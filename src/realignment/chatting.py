"""Texts from a server that speaks OpenAI's chat completions: many chats at a time, each answered or not."""

import asyncio
import queue
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from realignment.oracles.asking import (
    Asking,
    Faults,
    MalformedReplyError,
    Pace,
    cannot_go_on,
    connect,
    describe,
    persist,
)
from realignment.oracles.completions import Completion, parse_completion
from realignment.parameters import ChatParameters

if TYPE_CHECKING:
    from openai import AsyncOpenAI


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
    replies: queue.SimpleQueue[tuple[int, Reply] | None] = queue.SimpleQueue()
    found: dict[int, Reply] = {}
    asking = Asking(_ask_all(settings, requests, replies), replies)
    asking.start()
    try:
        while (reply := replies.get()) is not None:
            found[reply[0]] = reply[1]
    finally:
        asking.stop()
    if asking.error is not None:
        raise asking.error
    return [found[position] for position in range(len(requests))]


async def _ask_all(
    settings: ChatParameters, requests: Sequence[Request], replies: "queue.SimpleQueue[Any]"
) -> None:
    """A fixed number of workers share one list: so many requests are under way, and no task waits."""
    rest = iter(enumerate(requests))
    pace, faults = Pace(settings.requests_per_minute), Faults()
    async with connect(settings) as client:

        async def work() -> None:
            for position, request in rest:
                replies.put((position, await _ask(client, settings, request, pace, faults)))

        async with asyncio.TaskGroup() as group:
            for _ in range(min(settings.concurrency, len(requests))):
                group.create_task(work())


async def _ask(
    client: "AsyncOpenAI", settings: ChatParameters, request: Request, pace: Pace, faults: Faults
) -> Reply:
    from openai import OpenAIError

    shaped = {"temperature": settings.temperature, "max_tokens": settings.max_tokens}
    body = {
        name: value for name, value in (shaped | request.body | settings.extra).items() if value is not None
    }

    async def send() -> Completion:
        await pace.wait()
        raw = await client.chat.completions.with_raw_response.create(
            model=settings.model,
            messages=request.messages,  # type: ignore[arg-type]  # roles are plain texts here
            extra_body=body,
        )
        return parse_completion(raw.content)

    try:
        completion = await persist(send, max_attempts=settings.max_attempts)
    except (OpenAIError, MalformedReplyError) as error:
        if problem := cannot_go_on(error, settings.base_url, settings.model):
            raise problem from error
        fault = f"no reply: {describe(error)}"
        faults.count(fault)
        return Reply("", False, fault)
    faults.reset()
    choice = completion.choices[0]
    return Reply((choice.message.content or "").strip(), choice.finish_reason != "length")
