"""Asynchronous work for a synchronous caller: in a thread of its own, with results as they come."""

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")
_BATCH_S = 0.01
"""Seconds for which results are collected before they are passed to the caller."""


class BackgroundTask(Generic[T]):
    """Runs a coroutine in an event loop in a thread of its own, and yields its results as they come.

    A thread of its own, because in a notebook the main thread runs an event loop already. Results are passed
    on in batches every few milliseconds: threads that wake each other for each result do little else.
    """

    def __init__(self, work: Callable[[Callable[[T], None]], Coroutine[Any, Any, None]]) -> None:
        """Prepare the thread; entering the context starts it.

        Args:
            work: Returns the coroutine, given the function that it calls with each result.
        """
        self._work = work
        # Batches of results for the caller's thread; None: the coroutine has ended.
        self._batches: queue.SimpleQueue[list[T] | None] = queue.SimpleQueue()
        self._collected: list[T] = []
        self._error: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="chat-client", daemon=True)

    def __enter__(self) -> Self:
        self._task = self._loop.create_task(self._work(self._emit))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel the coroutine, and wait until it has ended."""
        with suppress(RuntimeError):  # the loop has ended by itself
            assert self._task is not None
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def results(self) -> Iterator[T]:
        """Yield the results until the coroutine has ended; an error of it is raised here."""
        while (batch := self._batches.get()) is not None:
            yield from batch
        if self._error is not None:
            raise self._error

    def _emit(self, result: T) -> None:
        # The first result of a batch starts the clock. All of this runs in the loop's thread: no lock.
        if not self._collected:
            self._loop.call_later(_BATCH_S, self._flush)
        self._collected.append(result)

    def _flush(self) -> None:
        batch = self._collected
        self._collected = []
        self._batches.put(batch)

    def _run(self) -> None:
        """Run the coroutine to its end, in the thread."""
        try:
            assert self._task is not None
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        except BaseExceptionGroup as group:  # of a task group: one worker failed, the others were cancelled
            self._error = group.exceptions[0]
        except Exception as error:
            self._error = error
        finally:
            self._loop.close()
            self._flush()
            self._batches.put(None)
