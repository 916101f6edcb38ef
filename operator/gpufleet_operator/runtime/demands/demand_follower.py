"""Keeps the cache of GPUDemands current. Nothing else depends on it."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from gpufleet_operator.kube import paths
from gpufleet_operator.kube.api import Sleep
from gpufleet_operator.kube.errors import ApiError, InvalidWriteError, NotFoundError
from gpufleet_operator.kube.informer import Informer
from gpufleet_operator.model.demands.gpu_demand import Demand

_RETRY_SECONDS = 60.0

log = structlog.get_logger(__name__)


async def follow_demands(
    informer: Informer[Demand],
    listed: Callable[[], None],
    denied: Callable[[str, ApiError], Awaitable[None]],
    *,
    sleep: Sleep = asyncio.sleep,
) -> None:
    """Follows the GPUDemands until cancelled; calls `listed` after each complete list, and reports denied reads.

    While their CRD or the permission to read them is missing, as during an upgrade, no demand is recorded.
    """
    while True:
        try:
            await informer.run(listed)
        except (InvalidWriteError, NotFoundError) as error:
            log.warning("cannot read GPUDemands, retrying later", error=str(error))
            if isinstance(error, InvalidWriteError):
                await denied(paths.DEMANDS, error)
        await sleep(_RETRY_SECONDS)
