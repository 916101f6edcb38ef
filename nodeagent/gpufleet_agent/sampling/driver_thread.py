"""A thread of its own for calls that may never return.

A driver call that hangs can't be cancelled, so each device has its own thread: a stuck one holds up nobody else.
The threads are daemons, because the executors of the standard library wait for theirs when the process ends.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Job:
    function: Callable[[], Any] | None
    """None: end the thread."""
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class DriverThread:
    """Runs functions one after the other in one thread. Used from one event loop."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._stopped: asyncio.Future[None] | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Run `function` after everything submitted before; the future has its result or its exception.

        Whoever stops waiting just leaves: the function runs to its end and its outcome is dropped.
        """
        if self._stopped is not None:
            raise RuntimeError("the worker was stopped")
        return self._put(function)

    def stop(self) -> asyncio.Future[None]:
        """Take nothing new. The future is done when the thread has finished what was submitted and is gone."""
        if self._stopped is None:
            self._stopped = self._put(None)
        return self._stopped

    def _put(self, function: Callable[[], T] | None) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        future.add_done_callback(_look)
        self._jobs.put(_Job(function, future, loop))
        return future

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            if job.function is None:
                with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    job.loop.call_soon_threadsafe(self._gone, job.future)
                return
            result: Any = None
            error: Exception | None = None
            try:
                result = job.function()
            except Exception as raised:  # noqa: BLE001 - it belongs to whoever awaits the future
                error = raised
            with suppress(RuntimeError):  # as above
                job.loop.call_soon_threadsafe(_settle, job.future, result, error)
            # Else the last outcome, with its traceback, would be kept alive while this thread waits.
            del job, result, error

    def _gone(self, future: asyncio.Future[Any]) -> None:
        # The thread has only to return: this waits for no driver.
        self._thread.join()
        _settle(future, None, None)


def _settle(future: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def _look(future: asyncio.Future[Any]) -> None:
    """Mark the exception as seen: an outcome that came after its waiter had left is not worth a complaint."""
    if not future.cancelled():
        future.exception()
