"""A version that rises, and a way to wait for the next one: how parts of the agent wake each other."""

import asyncio


class VersionSignal:
    """Level-triggered: a waiter says what it has seen, so a change between two waits is never missed.

    For use within one event loop.
    """

    def __init__(self) -> None:
        self.version = 0
        self._next = asyncio.Event()

    def notify(self) -> None:
        """Raise the version and wake everyone who waits."""
        self.version += 1
        woken, self._next = self._next, asyncio.Event()
        woken.set()

    async def wait(self, seen: int) -> int:
        """Wait until the version differs from `seen`; returns the new one."""
        while self.version == seen:
            await self._next.wait()
        return self.version
