"""Starts and stops the components of the agent: in order, all or none, and each within its time limit."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any

import structlog

log = structlog.get_logger(__name__)

CLOSE_SECONDS = 2.0
"""Time limit for closing a component. A driver call that hangs must not delay the exit."""


class ComponentError(Exception):
    """A component of the agent did not start, or ended. The message names it."""


async def start_component(
    stack: AsyncExitStack,
    name: str,
    start: Callable[[], Awaitable[object]],
    close: Callable[[], Awaitable[object]],
) -> None:
    """Starts a component and registers its closing with `stack`. A component that fails to start cleans up itself.

    Raises:
        ComponentError: It did not start; the stack then closes the components before it.
    """
    try:
        await start()
    except Exception as error:  # of any kind: the error must name the component
        raise ComponentError(f"{name}: {type(error).__name__}: {error}") from error
    stack.push_async_callback(_close_component, name, close)
    log.debug("started", component=name)


async def supervise(loops: Mapping[str, Coroutine[Any, Any, object]]) -> None:
    """Runs endless loops until this is cancelled or one of them ends.

    Raises:
        ComponentError: A loop ended; the message names it and the reason.
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


async def _close_component(name: str, close: Callable[[], Awaitable[object]]) -> None:
    try:
        async with asyncio.timeout(CLOSE_SECONDS) as timeout:
            await close()
    except TimeoutError as error:
        if timeout.expired():
            log.warning("close timed out", component=name, seconds=CLOSE_SECONDS)
        else:
            _failed_to_close(name, error)
    except Exception as error:  # noqa: BLE001 - of any kind: the other components must still be closed
        _failed_to_close(name, error)
    else:
        log.debug("closed", component=name)


def _failed_to_close(name: str, error: Exception) -> None:
    log.error("close failed", component=name, error=repr(error), exc_info=error)
