"""A rising version and a way to wait for the next one: how components of the agent wake each other."""

import asyncio


class VersionSignal:
    """Level-triggered signal: a waiter passes the version that it has seen, so no change between two waits is missed.

    For use within one event loop.
    """

    def __init__(self) -> None:
        self.version = 0
        self._waiters: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        """Raises the version and wakes all waiters."""
        self.version += 1
        for waiter in self._waiters:
            _wake(waiter)

    async def wait(self, seen: int) -> int:
        """Waits until the version differs from `seen`; returns the new one."""
        while self.version == seen:
            await self._next(asyncio.get_running_loop().create_future())
        return self.version

    async def wait_for(self, seen: int, seconds: float) -> bool:
        """Waits until the version differs from `seen`; returns False if it does not within this time.

        For waits that mostly end by time: `asyncio.timeout` ends them by cancelling the task, which takes several times
        as long.
        """
        if self.version == seen:
            loop = asyncio.get_running_loop()
            waiter: asyncio.Future[None] = loop.create_future()
            timer = loop.call_later(seconds, _wake, waiter)
            try:
                await self._next(waiter)
            finally:
                timer.cancel()
        return self.version != seen

    async def _next(self, waiter: asyncio.Future[None]) -> None:
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
