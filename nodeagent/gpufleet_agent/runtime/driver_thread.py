"""A thread for calls that may never return.

A driver call that hangs cannot be cancelled, so each device has its own thread and delays no other device. The threads
are daemons: the executors of the standard library would wait for theirs when the process ends.
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
    """Runs functions one after the other in one thread. For use from one event loop."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._stopped: asyncio.Future[None] | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Runs `function` after everything submitted before; the future gets its result or exception.

        If the future is cancelled, the function still runs to its end, and its outcome is dropped.

        Raises:
            RuntimeError: The thread was stopped.
        """
        if self._stopped is not None:
            raise RuntimeError("the thread was stopped")
        return self._put(function)

    def stop(self) -> asyncio.Future[None]:
        """Accepts no more functions. The future is done when all submitted ones have run and the thread has ended."""
        if self._stopped is None:
            self._stopped = self._put(None)
        return self._stopped

    def _put(self, function: Callable[[], T] | None) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        future.add_done_callback(_mark_retrieved)
        self._jobs.put(_Job(function, future, loop))
        return future

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            if job.function is None:
                with suppress(RuntimeError):  # the loop is closed, no task waits
                    job.loop.call_soon_threadsafe(self._join, job.future)
                return
            result: Any = None
            error: Exception | None = None
            try:
                result = job.function()
            except Exception as raised:  # noqa: BLE001 - passed on to the future
                error = raised
            with suppress(RuntimeError):  # as above
                job.loop.call_soon_threadsafe(_settle, job.future, result, error)
            # Otherwise the last outcome, with its traceback, would stay alive while this thread waits.
            del job, result, error

    def _join(self, future: asyncio.Future[Any]) -> None:
        # The thread only has to return: this does not wait for a driver.
        self._thread.join()
        _settle(future, None, None)


def _settle(future: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def _mark_retrieved(future: asyncio.Future[Any]) -> None:
    """Marks the exception as retrieved: asyncio must not log outcomes whose waiter was cancelled."""
    if not future.cancelled():
        future.exception()
