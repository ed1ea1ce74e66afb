"""The client of an OpenAI-compatible server: many requests at a time, an answer or a failure for each."""

import asyncio
import os
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from realignment.chat_client.completions import Completion, MalformedReplyError, parse_completion
from realignment.chat_client.event_loop import BackgroundTask
from realignment.chat_client.retry import (
    FailureCounter,
    RateLimiter,
    StatusError,
    describe_error,
    fatal_error,
    find_proxy,
    post,
    with_retries,
)
from realignment.chat_client.usage import Usage, add_usage
from realignment.parameters import ChatParameters
from realignment.records import OracleError

if TYPE_CHECKING:
    import aiohttp


Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why a request has no answer after all attempts; the next run retries it."""

    reason: str


Answer = Completion | Failure


def build_request_body(body: Body, settings: ChatParameters) -> dict[str, Any]:
    """Return the whole body of a request.

    Args:
        body: Fields of this request; they override temperature and max_tokens of the settings.
        settings: The server's; its `extra` overrides all.

    Returns:
        The body, without fields that are None.
    """
    fields: dict[str, Any] = {
        "model": settings.model,
        "temperature": settings.temperature,
        "max_tokens": settings.max_tokens,
        **body,
        **settings.extra,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _read_key(variable: str, url: str, section: str) -> str:
    """Return the key in an environment variable, without the line end of the file that it was read from.

    Raises:
        OracleError: There is none, or it cannot be part of a header; the message does not repeat it.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        raise OracleError(
            f"The environment variable {variable} holds no key for {url}. Set it, or "
            f"`{section}.api_key_variable: null` for a server that needs none."
        )
    if not key.isprintable():
        raise OracleError(
            f"The environment variable {variable} holds a line end or another control character within the "
            f"key for {url}: perhaps two lines, where one is the key. Set it to the key alone."
        )
    return key


@dataclass(frozen=True)
class ChatServer:
    """Sends requests with bounded concurrency, a rate limit and retries, and counts what they cost.

    Attributes:
        settings: Address, model, key and limits.
        usage: Requests, tokens and cost so far.
        section: The parameters that the settings are from, for messages.
    """

    settings: ChatParameters
    usage: Usage = field(default_factory=Usage, compare=False)
    section: str = "judging.chat"

    def complete(self, bodies: Iterable[Body]) -> Generator[tuple[int, Answer], None, None]:
        """Send all requests; closing the generator early cancels those that are pending.

        Args:
            bodies: Fields of each request, `messages` at least; see `build_request_body`.

        Yields:
            Position and answer of every request, as they come.

        Raises:
            OracleError: The server is not there, refuses the key or the model, or answers nothing at all.
        """
        task: BackgroundTask[tuple[int, Answer]] = BackgroundTask(lambda emit: self._send_all(bodies, emit))
        with task:
            yield from task.results()

    async def _send_all(self, bodies: Iterable[Body], emit: Callable[[tuple[int, Answer]], None]) -> None:
        """Send requests from a fixed number of workers, which share one iterator.

        So many requests are pending at a time, and no task is created per request.
        """
        numbered = iter(enumerate(bodies))
        rate_limiter = RateLimiter(self.settings.requests_per_minute)
        failures = FailureCounter(self.section)
        async with self._connect() as session:

            async def work() -> None:
                for position, body in numbered:
                    emit((position, await self._send(session, body, rate_limiter, failures)))

            async with asyncio.TaskGroup() as group:
                for _ in range(self.settings.concurrency):
                    group.create_task(work())

    def _connect(self) -> "aiohttp.ClientSession":
        import aiohttp

        settings = self.settings
        headers = {"Content-Type": "application/json"}
        if settings.api_key_variable is not None:
            key = _read_key(settings.api_key_variable, settings.base_url, self.section)
            headers["Authorization"] = f"Bearer {key}"
        return aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=settings.timeout_s),
            connector=aiohttp.TCPConnector(limit=settings.concurrency),
            proxy=find_proxy(settings.base_url),
        )

    async def _send(
        self,
        session: "aiohttp.ClientSession",
        body: Body,
        rate_limiter: RateLimiter,
        failures: FailureCounter,
    ) -> Answer:
        """Send one request, with retries, and count its cost."""
        from aiohttp import ClientError

        settings = self.settings
        url = f"{settings.base_url.rstrip('/')}/chat/completions"
        request_body = build_request_body(body, settings)

        async def send() -> Completion:
            await rate_limiter.wait()
            self.usage.requests += 1
            return parse_completion(await post(session, url, request_body))

        try:
            completion = await with_retries(send, max_attempts=settings.max_attempts)
        except (StatusError, ClientError, TimeoutError, MalformedReplyError) as error:
            fatal = fatal_error(error, settings.base_url, settings.model, self.section)
            if fatal is not None:
                raise fatal from error
            failure = Failure(describe_error(error))
            failures.count(failure.reason)
            return failure
        failures.reset()
        add_usage(completion, settings, self.usage)
        return completion
