"""Asynchronous work for a caller that is not: in a thread of its own, results handed over as they come."""

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")
_HAND_OVER_S = 0.01


class Asking(Generic[T]):
    """Runs a coroutine in an event loop in a thread of its own, and hands over its results as they come.

    Of its own, for a notebook has an event loop running in the main thread already. Results are handed over
    together every few milliseconds: threads that wake each other for each result get little else done.

    Attributes:
        work: Makes the coroutine, given the function that takes a result.
    """

    def __init__(self, work: Callable[[Callable[[T], None]], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._parcels: queue.SimpleQueue[list[T] | None] = queue.SimpleQueue()
        self._collected: list[T] = []
        self._error: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="asking", daemon=True)

    def __enter__(self) -> Self:
        self._task = self._loop.create_task(self._work(self._give))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel what is under way, and wait until it has ended."""
        with suppress(RuntimeError):  # the loop has ended by itself
            assert self._task is not None
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def results(self) -> Iterator[T]:
        """The results, until the coroutine has ended; what it raised is raised here."""
        while (parcel := self._parcels.get()) is not None:
            yield from parcel
        if self._error is not None:
            raise self._error

    def _give(self, result: T) -> None:
        if not self._collected:
            self._loop.call_later(_HAND_OVER_S, self._hand_over)
        self._collected.append(result)

    def _hand_over(self) -> None:
        parcel, self._collected = self._collected, []
        self._parcels.put(parcel)

    def _run(self) -> None:
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
            self._hand_over()
            self._parcels.put(None)
