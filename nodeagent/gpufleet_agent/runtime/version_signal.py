"""A rising version and a way to wait for the next one: how components of the agent wake each other."""

import asyncio


class VersionSignal:
    """Level-triggered signal: a waiter passes the version that it has seen, so no change between two waits is missed.

    For use within one event loop.
    """

    def __init__(self) -> None:
        self.version = 0
        self._next = asyncio.Event()

    def notify(self) -> None:
        """Raises the version and wakes all waiters."""
        self.version += 1
        woken, self._next = self._next, asyncio.Event()
        woken.set()

    async def wait(self, seen: int) -> int:
        """Waits until the version differs from `seen`; returns the new one."""
        while self.version == seen:
            await self._next.wait()
        return self.version
