"""Requests to a server that may fail: rate limit, retries, and errors that end the run."""

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

from realignment.chat_client.completions import MalformedReplyError, replace_surrogates
from realignment.records import OracleError

if TYPE_CHECKING:  # slow to import; only the oracles behind servers need it
    import aiohttp


T = TypeVar("T")

_MAX_FAILURES = 50
"""Failed requests in a row after which a run ends."""
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 60.0
"""Bounds of the exponential backoff."""
_LONGEST_RETRY_AFTER_S = 900.0
"""Seconds of a server's `Retry-After` that are respected, at most."""
_TRANSIENT_STATUSES = {408, 409, 425, 429}
"""Statuses below 500 after which a request is retried."""


class StatusError(Exception):
    """The server answered with an error.

    Attributes:
        status: Status of HTTP.
        code: The server's own code, such as ``insufficient_quota``; None where it gives none.
        retry_after: Seconds that the server asks to wait; 0 where it does not say.
    """

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        super().__init__(f"status {status}: {error_message(body)}")
        self.status = status
        self.code = _parse_error(body).get("code")
        self.retry_after = _parse_retry_after(headers.get("Retry-After", ""))


def error_message(body: bytes) -> str:
    """Return the message of an error in OpenAI's format; of any other body its first characters."""
    return replace_surrogates(str(_parse_error(body).get("message") or body[:120].decode(errors="replace")))


def _parse_error(body: bytes) -> dict[str, Any]:
    """Return the error object of a response; empty where it has none."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    error = value.get("error", value) if isinstance(value, dict) else {}
    return error if isinstance(error, dict) else {"message": str(error)}


def _parse_retry_after(value: str) -> float:
    """Return the seconds of a `Retry-After` header, a number or a date; 0 where it is neither."""
    with suppress(ValueError):
        return max(0.0, float(value))
    with suppress(ValueError, TypeError, OverflowError):
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    return 0.0


def find_proxy(url: str) -> str | None:
    """Return the proxy that the environment names for this address; None: a direct connection."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


async def post(session: "aiohttp.ClientSession", url: str, body: Mapping[str, Any]) -> bytes:
    """Send a POST request, and return the body of the response.

    Args:
        session: Its headers, timeout and proxy are used.
        url: Whole address.
        body: Sent as JSON.

    Returns:
        The body of a response with status 200.

    Raises:
        StatusError: The response has another status.
        aiohttp.ClientError, TimeoutError: There is no response, or not all of it.
    """
    # `json.dumps` escapes all but ASCII, so that no server can mistake the encoding.
    async with session.post(url, data=json.dumps(body).encode()) as response:
        answer = await response.read()
        if response.status != 200:
            raise StatusError(response.status, answer, response.headers)
        return answer


class RateLimiter:
    """Spaces requests evenly in time."""

    def __init__(self, per_minute: float | None) -> None:
        """Set the rate.

        Args:
            per_minute: Requests per minute; None: no limit.
        """
        self._gap = 60 / per_minute if per_minute else 0.0
        self._next = 0.0

    async def wait(self) -> None:
        """Wait until the next request may start."""
        now = asyncio.get_running_loop().time()
        start = max(now, self._next)
        self._next = start + self._gap
        if start > now:
            await asyncio.sleep(start - now)


class FailureCounter:
    """Counts failed requests in a row, to end a run whose server only fails instead of retrying for hours."""

    def __init__(self, section: str) -> None:
        """Start at 0.

        Args:
            section: The parameters of the server, for the message.
        """
        self._section = section
        self._failures = 0

    def reset(self) -> None:
        """Start again from 0: the server has answered."""
        self._failures = 0

    def count(self, reason: str) -> None:
        """Count a request that has failed after all its retries.

        Args:
            reason: Why it failed.

        Raises:
            OracleError: So have all of the last requests.
        """
        self._failures += 1
        if self._failures >= _MAX_FAILURES:
            raise OracleError(
                f"The last {_MAX_FAILURES} requests have all failed, those that may be repeated "
                f"`{self._section}.max_attempts` times; the last one: {reason}. See to the "
                f"server, or to `{self._section}`, and run again: only what is missing is requested."
            )


async def with_retries(send: Callable[[], Awaitable[T]], *, max_attempts: int) -> T:
    """Send a request, and retry it after transient errors with exponential backoff.

    Args:
        send: Sends the request once.
        max_attempts: Attempts in all.

    Returns:
        The result of the first attempt that succeeds.

    Raises:
        StatusError, aiohttp.ClientError, TimeoutError, MalformedReplyError: That of the last attempt, or the
            first that is not transient.
    """
    try:
        # Outside of tenacity, whose overhead is a third of a request's time.
        return await send()
    except Exception as error:
        first_error: Exception | None = error

    async def attempt() -> T:
        nonlocal first_error
        if first_error is not None:  # tenacity's first attempt is the one above, which has failed
            error = first_error
            first_error = None
            raise error
        return await send()

    retrying = AsyncRetrying(
        stop=stop_after_attempt(max_attempts),
        wait=_compute_wait,
        retry=retry_if_exception(_is_transient),
        reraise=True,
    )
    return await retrying(attempt)


def _is_transient(error: BaseException) -> bool:
    from aiohttp import ClientConnectionError, ClientPayloadError

    if isinstance(error, StatusError):
        is_transient = error.status in _TRANSIENT_STATUSES or error.status >= 500
        # OpenAI answers 429 where the quota is used up, too.
        return is_transient and error.code != "insufficient_quota"
    return isinstance(error, ClientConnectionError | ClientPayloadError | TimeoutError | MalformedReplyError)


def _compute_wait(state: RetryCallState) -> float:
    """Return seconds to wait: exponential with jitter, and never less than the server asks for."""
    backoff = wait_exponential_jitter(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S, jitter=_FIRST_WAIT_S)
    error = state.outcome.exception() if state.outcome else None
    retry_after = error.retry_after if isinstance(error, StatusError) else 0.0
    return max(backoff(state), min(retry_after, _LONGEST_RETRY_AFTER_S))


def fatal_error(error: Exception, url: str, model: str, section: str) -> OracleError | None:
    """Return the error that ends the run, if the server or the account as a whole is at fault.

    Args:
        error: Error of a request after all retries.
        url: Address of the server, for the message.
        model: Name of the model, for the message.
        section: The parameters of the server, for the message.

    Returns:
        An error with what to do; None where only this request failed.
    """
    from aiohttp import ClientConnectorError

    again = "Then run again: only what is missing is requested."
    if isinstance(error, ClientConnectorError):
        return OracleError(
            f"No server answers at {url} ({error}). Start it, or set `{section}.base_url`. {again}"
        )
    if not isinstance(error, StatusError):
        return None
    # What the server says to a wrong key is left out, for it may repeat the key.
    problem = {
        401: "refuses the key, or wants one (401): give the right one in the environment variable that "
        f"`{section}.api_key_variable` names",
        403: f"does not let this key use {model} (403): take another key or `{section}.model`",
        404: f"knows no model {model!r}, or no such path ({error}): see `{section}.model` and "
        f"`{section}.base_url`",
    }.get(error.status)
    if error.code == "insufficient_quota":
        problem = "says that the account's quota is used up: raise it"
    return OracleError(f"{url} {problem}. {again}") if problem else None


def describe_error(error: Exception) -> str:
    """Return the error for people, in one line."""
    if isinstance(error, TimeoutError):
        return "timed out"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
