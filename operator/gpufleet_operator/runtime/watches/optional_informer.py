"""Keeps a cache current that the operator can do without."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from gpufleet_operator.cache.store import Stored
from gpufleet_operator.kube.api import Sleep
from gpufleet_operator.kube.errors import ApiError, InvalidWriteError, NotFoundError
from gpufleet_operator.kube.informer import Informer

_RETRY_SECONDS = 60.0

T = TypeVar("T", bound=Stored)

log = structlog.get_logger(__name__)


async def follow_optional(
    informer: Informer[T],
    listed: Callable[[], None],
    denied: Callable[[str, ApiError], Awaitable[None]],
    *,
    unreadable: Callable[[], None] = lambda: None,
    sleep: Sleep = asyncio.sleep,
) -> None:
    """Follows a collection until cancelled; calls `listed` after each complete list, and reports denied reads.

    While its CRD or the permission to read it is missing, as during an upgrade, the cache stays as it is. GPUDemands
    record nothing then. Agents that may not write Leases either report instead.

    Args:
        informer: Lists and watches the collection.
        listed: Called after each complete list.
        denied: Called with the path and the error of a denied read.
        unreadable: Called after each time that the collection could not be read.
        sleep: Waits between attempts.
    """
    while True:
        try:
            await informer.run(listed)
        except (InvalidWriteError, NotFoundError) as error:
            log.warning("cannot read a collection, retrying later", path=informer.path, error=str(error))
            unreadable()
            if isinstance(error, InvalidWriteError):
                await denied(informer.path, error)
        await sleep(_RETRY_SECONDS)
