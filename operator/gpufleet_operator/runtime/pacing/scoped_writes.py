"""Runs the writes of a round so that slow ones delay only their own scope: a namespace, or a node."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

PATIENCE_SECONDS = 1.0
"""How long a round waits for its writes. It begins none later: they are decided again."""
MAX_SCOPES = 32
"""Scopes in which a round begins to write. The others have their turn in the next round."""

Write = Callable[[], Awaitable[None]]


class ScopedWrites:
    """The writes of a scope follow one another. While they have not ended, the next rounds begin none in this scope."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self, writes: Iterable[tuple[str, Write]]) -> None:
        """Begins writes, and waits for them for a moment.

        Args:
            writes: Scope and write, in order.

        Raises:
            Exception: A write of this or of an earlier round raised it.
        """
        self._take_ended()
        groups: dict[str, list[Write]] = {}
        for scope, write in writes:
            if scope in groups or (scope not in self._tasks and len(groups) < MAX_SCOPES):
                groups.setdefault(scope, []).append(write)
        until = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        begun = {scope: asyncio.create_task(_one_by_one(group, until)) for scope, group in groups.items()}
        self._tasks |= begun
        if begun:
            await asyncio.wait(begun.values(), timeout=PATIENCE_SECONDS, return_when=asyncio.FIRST_EXCEPTION)
            self._take_ended()

    def _take_ended(self) -> None:
        ended = {scope: task for scope, task in self._tasks.items() if task.done()}
        self._tasks = {scope: task for scope, task in self._tasks.items() if scope not in ended}
        for task in ended.values():
            task.result()

    async def close(self) -> None:
        """Cancels the writes that have not ended."""
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _one_by_one(writes: Iterable[Write], until: float) -> None:
    for write in writes:
        if asyncio.get_running_loop().time() < until:
            await write()
