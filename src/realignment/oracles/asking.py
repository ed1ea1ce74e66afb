"""How a server is asked: at its pace, again after a fault, and not for ever; in a thread of its own."""

import asyncio
import os
import queue
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from realignment.oracles import OracleError
from realignment.parameters import ChatParameters

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from tenacity import RetryCallState

T = TypeVar("T")
_GIVE_UP_AFTER = 50
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 60.0
_LONGEST_RETRY_AFTER_S = 900.0
_TRANSIENT = {408, 409, 425, 429}
_RESET = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, TimeoutError)


class MalformedReplyError(ValueError):
    """What the server sent is not a chat completion."""


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
                f"The last {_GIVE_UP_AFTER} requests have all failed `judging.chat.max_attempts` times; "
                f"{reason}. See to the server and run again: only what is missing is asked."
            )


async def persist(send: Callable[[], Awaitable[T]], *, max_attempts: int) -> T:
    """The result of `send`, tried again after transient faults, later each time or when the server says.

    Raises:
        OpenAIError: The last attempt's, or the first that no repetition mends.
        MalformedReplyError: Likewise.
    """
    from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt

    retrying = AsyncRetrying(
        stop=stop_after_attempt(max_attempts),
        wait=_wait,
        retry=retry_if_exception(_is_transient),
        reraise=True,
    )
    return await retrying(send)


def _is_transient(error: BaseException) -> bool:
    from openai import APIConnectionError, APIStatusError

    if isinstance(error, APIStatusError):
        mendable = error.status_code in _TRANSIENT or error.status_code >= 500
        return mendable and error.code != "insufficient_quota"
    return isinstance(error, APIConnectionError | MalformedReplyError)


def _wait(state: "RetryCallState") -> float:
    """Seconds: exponential with jitter, and never less than the server asks for."""
    from openai import APIStatusError
    from tenacity import wait_exponential_jitter

    backing_off = wait_exponential_jitter(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S, jitter=_FIRST_WAIT_S)
    error = state.outcome.exception() if state.outcome else None
    asked = _retry_after(error.response.headers) if isinstance(error, APIStatusError) else 0.0
    return max(backing_off(state), min(asked, _LONGEST_RETRY_AFTER_S))


def _retry_after(headers: Any) -> float:
    """Seconds that `Retry-After` asks for, as a number or as a date; 0 where it says nothing readable."""
    value = headers.get("retry-after", "")
    with suppress(ValueError):
        return max(0.0, float(value))
    with suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    return 0.0


def connect(settings: ChatParameters) -> "AsyncOpenAI":
    """A client of the server; to be used as an async context.

    Raises:
        OracleError: The environment variable that should hold the key is empty.
    """
    from openai import AsyncOpenAI

    key, variable = "none", settings.api_key_variable
    if variable is not None:
        key = os.environ.get(variable, "")
        if not key:
            raise OracleError(
                f"The environment variable {variable} holds no key for {settings.base_url}. Set it, "
                "or `judging.chat.api_key_variable: null` for a server that wants none."
            )
    # Retries are ours: the client's own neither keep to the pace nor count what they cost.
    return AsyncOpenAI(base_url=settings.base_url, api_key=key, timeout=settings.timeout_s, max_retries=0)


def cannot_go_on(error: Exception, url: str, model: str) -> OracleError | None:
    """What is wrong with the server or the account as a whole; None where only this request failed."""
    from openai import APIStatusError

    if isinstance(error, APIStatusError):
        # What the server says to a wrong key is left out, for it may repeat the key.
        problem = {
            401: "refuses the key (401): give the right one in the variable `judging.chat.api_key_variable`",
            403: f"does not let this key use {model} (403): take another key or `judging.chat.model`",
            404: f"knows no model {model!r}, or no such path ({describe(error)}): see `judging.chat.model` "
            "and `judging.chat.base_url`",
        }.get(error.status_code)
        if error.code == "insufficient_quota":
            problem = "says that the account's quota is used up: raise it"
        again = "Then run again: only what is missing is asked."
        return OracleError(f"{url} {problem}. {again}") if problem else None
    if any(isinstance(cause, OSError) and not isinstance(cause, _RESET) for cause in _causes(error)):
        return OracleError(
            f"No server answers at {url} ({describe(error)}). Start it, or set `judging.chat.base_url`, and "
            "run again: only what is missing is asked."
        )
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__ or error.__context__
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def describe(error: Exception) -> str:
    """The error for people, without the request: status and what the server says."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}"


class Asking(threading.Thread):
    """An event loop in a thread of its own that runs one coroutine and puts None behind its results.

    Of its own, for a notebook has an event loop running in the main thread already.
    """

    def __init__(self, work: Coroutine[Any, Any, None], results: "queue.SimpleQueue[Any]") -> None:
        super().__init__(name="chat oracle", daemon=True)
        self._results = results
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(work)
        self.error: BaseException | None = None

    def run(self) -> None:
        """Run the coroutine to its end, or until it is stopped."""
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        except BaseExceptionGroup as group:  # of a task group: one worker failed, the others were cancelled
            self.error = group.exceptions[0]
        except Exception as error:
            self.error = error
        finally:
            self._loop.close()
            self._results.put(None)

    def stop(self) -> None:
        """Cancel what is under way, and wait until it has ended."""
        with suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._task.cancel)
        self.join()
