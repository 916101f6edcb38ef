"""Starting and stopping the parts of the agent: in order, all or none, and each within its time."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any

import structlog

log = structlog.get_logger(__name__)

CLOSE_SECONDS = 2.0
"""Longest time that one part may take to close. A driver call that hangs must not hold up the end."""


class ComponentError(Exception):
    """A part of the agent could not start, or ended. The message names it."""


async def start_component(
    stack: AsyncExitStack,
    name: str,
    start: Callable[[], Awaitable[object]],
    close: Callable[[], Awaitable[object]],
) -> None:
    """Start one part, and have `stack` close it. What fails to start cleans up after itself.

    Raises:
        PartError: It didn't start; the stack then closes the parts before it.
    """
    try:
        await start()
    except Exception as error:  # whatever it is, whoever started the agent must hear which part it was
        raise ComponentError(f"{name}: {type(error).__name__}: {error}") from error
    stack.push_async_callback(_close_part, name, close)
    log.debug("started", part=name)


async def supervise(loops: Mapping[str, Coroutine[Any, Any, object]]) -> None:
    """Run loops that never end, until this is cancelled or one of them ends after all.

    Raises:
        PartError: A loop ended; the message says which and why.
    """
    tasks = {asyncio.create_task(loop, name=name) for name, loop in loops.items()}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    first = min(done, key=lambda task: task.get_name())
    error = None if first.cancelled() else first.exception()
    reason = f"{type(error).__name__}: {error}" if error else "ended without an error"
    raise ComponentError(f"{first.get_name()}: {reason}") from error


async def _close_part(name: str, close: Callable[[], Awaitable[object]]) -> None:
    try:
        async with asyncio.timeout(CLOSE_SECONDS) as timeout:
            await close()
    except TimeoutError as error:
        if timeout.expired():
            log.warning("closing took too long: left to the end of the process", part=name, seconds=CLOSE_SECONDS)
        else:
            _failed_to_close(name, error)
    except Exception as error:  # noqa: BLE001 - whatever it is: the parts before it must be closed, and this one named
        _failed_to_close(name, error)
    else:
        log.debug("closed", part=name)


def _failed_to_close(name: str, error: Exception) -> None:
    log.error("closing failed: left to the end of the process", part=name, error=repr(error), exc_info=error)
