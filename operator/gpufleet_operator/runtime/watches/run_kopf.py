"""Runs kopf, which watches GPUWorkloads, and starts it again when it fails.

kopf ends all of its tasks when one fails, and a watch fails at any error event but 410, and at a status of 500 or above
that lasts a minute. Decisions continue meanwhile with the cached objects. When kopf itself lists again, the caches are
also compared with complete lists.
"""

import asyncio
import signal
from collections.abc import Callable, Collection, Coroutine
from pathlib import Path
from types import CodeType
from typing import Any

import kopf
import structlog
from lightkube.config.kubeconfig import SingleConfig

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.runtime.watches import kopf_handlers

BASE_SECONDS = 0.5
CAP_SECONDS = 30.0
STABLE_SECONDS = 60.0
"""Time without a failure after which the pause before the next start is short again."""

_KOPF_FOLDER = str(Path(kopf.__file__).parent)
_WATCHER = "watcher for "
"""Begin of kopf's names of watch tasks, checked by a test."""
_END_SECONDS = 5.0
"""Maximum time for kopf's tasks to end."""
_COMPARE_SECONDS = 1.0
"""Delay from a list of kopf to the comparison of the caches."""
_STOP_SECONDS = 1.0
"""Maximum time for kopf's tasks to end after a signal, shorter because a standby waits for the Lease."""

Relist = Callable[[], Coroutine[Any, Any, None]]

log = structlog.get_logger(__name__)


class StopSignal(Exception):  # noqa: N818 - not an error: ends a task group
    """SIGTERM or SIGINT."""


async def run_kopf(
    cache: Cache,
    config: SingleConfig,
    *,
    relist: Relist,
    failed: Callable[[], None],
    base_seconds: float = BASE_SECONDS,
) -> None:
    """Applies watch events to the caches until a signal.

    Args:
        cache: The caches.
        config: Address and credentials of the apiserver.
        relist: Called before kopf is started again, and when it has listed again: it does not report deletions
            in between. Raises permanent errors, such as missing permissions or invalid credentials.
        failed: Called after each failure.
        base_seconds: Pause before the first new start; it doubles with each failure.

    Raises:
        StopSignal: SIGTERM or SIGINT.
        Exception: Of `relist`, or of a handler, so that the caches may have missed an event.
    """
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_handle_exception)
    end: asyncio.Future[None] = loop.create_future()
    pause = base_seconds
    while True:
        started = loop.time()
        error = await _run_once(cache, config, end, relist)
        failed()
        pause = base_seconds if loop.time() - started > STABLE_SECONDS else pause
        log.warning("kopf ended, restarting", error=repr(error), seconds=pause)
        await _unless_ended(asyncio.sleep(pause), end)
        pause = min(CAP_SECONDS, 2 * pause)
        await _unless_ended(relist(), end)


def _handle_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Ignores unretrieved exceptions of kopf's tasks: kopf awaits and logs only the first failed task.

    asyncio reports the others when they are garbage-collected, amid unrelated lines.
    """
    if not _is_of_kopf(context.get("future")):
        loop.default_exception_handler(context)


def _is_of_kopf(future: asyncio.Future[Any] | None) -> bool:
    if not isinstance(future, asyncio.Task):
        return False
    code: CodeType | None = getattr(future.get_coro(), "cr_code", None)
    return code is not None and code.co_filename.startswith(_KOPF_FOLDER)


async def _unless_ended(work: Coroutine[Any, Any, None], end: asyncio.Future[None]) -> None:
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task, end}, return_when=asyncio.FIRST_COMPLETED)
        if end.done():
            end.result()
        task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _run_once(
    cache: Cache, config: SingleConfig, end: asyncio.Future[None], relist: Relist
) -> BaseException | None:
    """Runs kopf until one of its tasks ends, and returns the error of that task.

    Not by `kopf.run_tasks`, which would also cancel the operator's own tasks that were started since.
    """
    loop = asyncio.get_running_loop()

    def stop(reason: Exception) -> None:
        if not end.done():
            end.set_exception(reason)

    lists = kopf_handlers.RepeatedLists()

    async def spawn() -> Collection[asyncio.Task[Any]]:
        tasks = await kopf.spawn_tasks(
            registry=kopf_handlers.registry(cache, config, lists, stop),
            settings=kopf_handlers.settings(),
            standalone=True,
            clusterwide=True,
        )
        # In the same step as kopf's own handlers: a signal that reached those would only restart kopf.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop, StopSignal())
        return tasks

    tasks = await _finished(spawn())
    comparing = asyncio.create_task(_compare_after_lists(lists, relist, stop))
    try:
        done, _ = await asyncio.wait({*tasks, end}, return_when=asyncio.FIRST_COMPLETED)
        if not end.done():
            await _cancel(watchers())  # when one fails, kopf leaves the others to `kopf.run_tasks`
    finally:
        await _cancel([*tasks, comparing], _STOP_SECONDS if end.done() else _END_SECONDS)
    if end.done():
        end.result()
    # `exception` of a task that was cancelled raises, which would end this one without an error.
    errors = [found for task in done if not task.cancelled() and (found := task.exception()) is not None]
    # Any error: kopf's own types are private, and the list that follows raises permanent errors. Rejected credentials
    # too: kopf gives up at the second 401, and is started again with the credentials that are valid then.
    return errors[0] if errors else None


async def _compare_after_lists(
    lists: kopf_handlers.RepeatedLists, relist: Relist, stop: Callable[[Exception], None]
) -> None:
    try:
        while True:
            await lists.found.wait()
            # Leaves time for the rest of its list, and limits a watch that always fails to one list per second.
            await asyncio.sleep(_COMPARE_SECONDS)
            lists.found.clear()
            log.info("kopf listed again, comparing the caches")
            await relist()
    except Exception as error:  # noqa: BLE001 - of any kind: it ends the process, as before a new start of kopf
        stop(error)


def watchers() -> list[asyncio.Task[Any]]:
    """Returns kopf's tasks that watch a kind."""
    return [task for task in asyncio.all_tasks() if task.get_name().startswith(_WATCHER)]


async def _finished(spawning: Coroutine[Any, Any, Collection[asyncio.Task[Any]]]) -> Collection[asyncio.Task[Any]]:
    """Returns the tasks; if this one is cancelled meanwhile, none of them is left."""
    task = asyncio.ensure_future(spawning)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await _cancel(await task)
        raise


async def _cancel(tasks: Collection[asyncio.Task[Any]], seconds: float = _END_SECONDS) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)
