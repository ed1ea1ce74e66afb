"""How a server is asked: at its pace, again after a fault, and not for ever."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_exponential_jitter

from realignment.chat_client.completions import MalformedReplyError, well_formed
from realignment.records import OracleError

if TYPE_CHECKING:  # takes long to import; only the oracles behind servers need it
    import aiohttp


T = TypeVar("T")


_GIVE_UP_AFTER = 50


_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 60.0


_LONGEST_RETRY_AFTER_S = 900.0


_TRANSIENT = {408, 409, 425, 429}


class StatusError(Exception):
    """The server answered with an error.

    Attributes:
        status: Of HTTP.
        code: The server's own, such as ``insufficient_quota``.
        retry_after: Seconds that it asks to wait; 0 where it does not say.
    """

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        super().__init__(f"status {status}: {message_of(body)}")
        self.status, self.code = status, _error_of(body).get("code")
        self.retry_after = _retry_after(headers.get("Retry-After", ""))


def message_of(body: bytes) -> str:
    """What an error says, of a server that gives it as OpenAI does; else how it begins."""
    return well_formed(str(_error_of(body).get("message") or body[:120].decode(errors="replace")))


def _error_of(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    error = found.get("error", found) if isinstance(found, dict) else {}
    return error if isinstance(error, dict) else {"message": str(error)}


def _retry_after(value: str) -> float:
    """Seconds that `Retry-After` asks for, as a number or as a date; 0 where it says nothing readable."""
    with suppress(ValueError):
        return max(0.0, float(value))
    with suppress(ValueError, TypeError, OverflowError):
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    return 0.0


def proxy_for(url: str) -> str | None:
    """The proxy that the environment names for this address."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


async def post(session: "aiohttp.ClientSession", url: str, body: Mapping[str, Any]) -> bytes:
    """What the server answers.

    Raises:
        StatusError: With another status than 200.
        aiohttp.ClientError, TimeoutError: Not at all, or half.
    """
    # In ASCII, so that no server depends on what it takes the text's encoding for.
    async with session.post(url, data=json.dumps(body).encode()) as response:
        answer = await response.read()
        if response.status != 200:
            raise StatusError(response.status, answer, response.headers)
        return answer


class Pace:
    """Requests evenly spaced, so many a minute; None: as fast as they come."""

    def __init__(self, per_minute: float | None) -> None:
        self._gap = 60 / per_minute if per_minute else 0.0
        self._next = 0.0

    async def wait(self) -> None:
        """Until the next request may start."""
        now = asyncio.get_running_loop().time()
        start = max(now, self._next)
        self._next = start + self._gap
        if start > now:
            await asyncio.sleep(start - now)


class Faults:
    """Ends a run whose server only fails: a night of retries would bring nothing."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def reset(self) -> None:
        """The server has answered."""
        self._in_a_row = 0

    def count(self, reason: str) -> None:
        """One more request has failed for good.

        Raises:
            OracleError: So have all of the last ones.
        """
        self._in_a_row += 1
        if self._in_a_row >= _GIVE_UP_AFTER:
            raise OracleError(
                f"The last {_GIVE_UP_AFTER} requests have all failed, those that may be repeated "
                f"`judging.chat.max_attempts` times; the last one: {reason}. See to the "
                "server, or to `judging.chat`, and run again: only what is missing is asked."
            )


async def persist(send: Callable[[], Awaitable[T]], *, max_attempts: int) -> T:
    """The result of `send`, tried again after transient faults, later each time or when the server says.

    Raises:
        StatusError, aiohttp.ClientError, TimeoutError, MalformedReplyError: The last attempt's, or the first
            that no repetition mends.
    """
    try:
        return await send()  # without the machinery for repetition, which costs a third of a request's time
    except Exception as error:
        failed: Exception | None = error

    async def attempt() -> T:
        nonlocal failed
        if failed is not None:  # the first attempt is over
            error, failed = failed, None
            raise error
        return await send()

    retrying = AsyncRetrying(
        stop=stop_after_attempt(max_attempts),
        wait=_wait,
        retry=retry_if_exception(_is_transient),
        reraise=True,
    )
    return await retrying(attempt)


def _is_transient(error: BaseException) -> bool:
    from aiohttp import ClientConnectionError, ClientPayloadError

    if isinstance(error, StatusError):
        return (error.status in _TRANSIENT or error.status >= 500) and error.code != "insufficient_quota"
    return isinstance(error, ClientConnectionError | ClientPayloadError | TimeoutError | MalformedReplyError)


def _wait(state: RetryCallState) -> float:
    """Seconds: exponential with jitter, and never less than the server asks for."""
    backing_off = wait_exponential_jitter(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S, jitter=_FIRST_WAIT_S)
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, StatusError) else 0.0
    return max(backing_off(state), min(asked, _LONGEST_RETRY_AFTER_S))


def cannot_go_on(error: Exception, url: str, model: str) -> OracleError | None:
    """What is wrong with the server or the account as a whole; None where only this request failed."""
    from aiohttp import ClientConnectorError

    again = "Then run again: only what is missing is asked."
    if isinstance(error, ClientConnectorError):
        return OracleError(
            f"No server answers at {url} ({error}). Start it, or set `judging.chat.base_url`. {again}"
        )
    if not isinstance(error, StatusError):
        return None
    # What the server says to a wrong key is left out, for it may repeat the key.
    problem = {
        401: "refuses the key, or wants one (401): give the right one in the environment variable that "
        "`judging.chat.api_key_variable` names",
        403: f"does not let this key use {model} (403): take another key or `judging.chat.model`",
        404: f"knows no model {model!r}, or no such path ({error}): see `judging.chat.model` and "
        "`judging.chat.base_url`",
    }.get(error.status)
    if error.code == "insufficient_quota":
        problem = "says that the account's quota is used up: raise it"
    return OracleError(f"{url} {problem}. {again}") if problem else None


def describe(error: Exception) -> str:
    """The error for people, in one line."""
    if isinstance(error, TimeoutError):
        return "timed out"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
