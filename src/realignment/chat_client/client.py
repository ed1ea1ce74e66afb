"""A server that speaks OpenAI's chat completions: many requests at a time, an answer or a fault for each."""

import asyncio
import os
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from realignment.chat_client.completions import Completion, MalformedReplyError, parse_completion
from realignment.chat_client.event_loop import Asking
from realignment.chat_client.retry import (
    Faults,
    Pace,
    StatusError,
    cannot_go_on,
    describe,
    persist,
    post,
    proxy_for,
)
from realignment.chat_client.usage import Usage, count
from realignment.parameters import ChatParameters
from realignment.records import OracleError

if TYPE_CHECKING:
    import aiohttp


Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request has no answer, after all attempts; the next run may have one."""

    reason: str


Answer = Completion | Failure


def fill_in(body: Body, settings: ChatParameters) -> dict[str, Any]:
    """The whole request: `body` before the temperature and max_tokens of the settings, `extra` before all."""
    whole: dict[str, Any] = {"model": settings.model}
    whole |= {"temperature": settings.temperature, "max_tokens": settings.max_tokens}
    whole |= {**body, **settings.extra}
    return {name: value for name, value in whole.items() if value is not None}


def _read_key(variable: str, url: str) -> str:
    """The key in an environment variable, without the line end of the file that it was read from.

    Raises:
        OracleError: There is none, or it cannot be part of a header; the message does not repeat it.
    """
    if not (key := os.environ.get(variable, "").strip()):
        raise OracleError(
            f"The environment variable {variable} holds no key for {url}. Set it, or "
            "`judging.chat.api_key_variable: null` for a server that wants none."
        )
    if not key.isprintable():
        raise OracleError(
            f"The environment variable {variable} holds a line end or another control character within the "
            f"key for {url}: perhaps two lines, where one is the key. Set it to the key alone."
        )
    return key


@dataclass(frozen=True)
class ChatServer:
    """Bounded in what is under way, paced, patient with transient faults, and counting what it costs.

    Attributes:
        settings: Address, model, key and limits.
        usage: Requests, tokens and cost so far.
    """

    settings: ChatParameters
    usage: Usage = field(default_factory=Usage, compare=False)

    def complete(self, bodies: Iterable[Body]) -> Generator[tuple[int, Answer], None, None]:
        """Position and answer of every request, as they come; closed early, it stops asking.

        Args:
            bodies: What is asked, `messages` at least. A body goes before the temperature and max_tokens of
                the settings, and `settings.extra` before all; a field that is None is left out.

        Raises:
            OracleError: The server is not there, refuses the key or the model, or answers nothing at all.
        """
        asking: Asking[tuple[int, Answer]] = Asking(lambda give: self._ask_all(bodies, give))
        with asking:
            yield from asking.results()

    async def _ask_all(self, bodies: Iterable[Body], give: Callable[[tuple[int, Answer]], None]) -> None:
        """A fixed number of workers share one list: so many requests are under way, and no task waits."""
        rest = iter(enumerate(bodies))
        pace, faults = Pace(self.settings.requests_per_minute), Faults()
        async with self._connect() as session:

            async def work() -> None:
                for position, body in rest:
                    give((position, await self._ask(session, body, pace, faults)))

            async with asyncio.TaskGroup() as group:
                for _ in range(self.settings.concurrency):
                    group.create_task(work())

    def _connect(self) -> "aiohttp.ClientSession":
        import aiohttp

        settings = self.settings
        headers = {"Content-Type": "application/json"}
        if (variable := settings.api_key_variable) is not None:
            headers["Authorization"] = f"Bearer {_read_key(variable, settings.base_url)}"
        return aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=settings.timeout_s),
            connector=aiohttp.TCPConnector(limit=settings.concurrency),
            proxy=proxy_for(settings.base_url),
        )

    async def _ask(self, session: "aiohttp.ClientSession", body: Body, pace: Pace, faults: Faults) -> Answer:
        from aiohttp import ClientError

        settings = self.settings
        url = f"{settings.base_url.rstrip('/')}/chat/completions"
        whole = fill_in(body, settings)

        async def send() -> Completion:
            await pace.wait()
            self.usage.requests += 1
            return parse_completion(await post(session, url, whole))

        try:
            completion = await persist(send, max_attempts=settings.max_attempts)
        except (StatusError, ClientError, TimeoutError, MalformedReplyError) as error:
            if problem := cannot_go_on(error, settings.base_url, settings.model):
                raise problem from error
            failure = Failure(describe(error))
            faults.count(failure.reason)
            return failure
        faults.reset()
        count(completion, settings, self.usage)
        return completion
