"""Reads the leases of the nodes every few seconds. A watch would send 500 events a second for 5,000 nodes."""

import asyncio
from datetime import timedelta

import structlog

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.cache.decode import node_leases
from gpufleet_operator.kube import paths
from gpufleet_operator.kube.api import Api, Sleep
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import UnavailableError
from gpufleet_operator.model.node_leases import NodeLeases, observe

log = structlog.get_logger(__name__)


class LeasePoller:
    """Keeps `Cache.node_leases` current; sets `Cache.dirty` when a kubelet becomes late, expires or returns.

    Args:
        api: The apiserver.
        cache: The cache to update.
        clock: Clock of the apiserver.
        sleep: Waits between two lists.
    """

    def __init__(self, api: Api, cache: Cache, clock: ServerClock, *, sleep: Sleep = asyncio.sleep) -> None:
        self._api, self._cache, self._clock, self._sleep = api, cache, clock, sleep
        self._late: frozenset[tuple[str, bool]] = frozenset()
        """`NodeLeases.late_nodes` of the last list."""

    async def run(self, interval_seconds: float) -> None:
        """Polls until cancelled. A list that gets no response is skipped: it shows nothing about the nodes.

        Raises:
            ApiError: The apiserver rejects the request (no permission).
        """
        self._cache.node_leases = NodeLeases(poll_interval=timedelta(seconds=interval_seconds))
        while True:
            begin = self._clock.now()
            if self._cache.telemetry.items:
                try:
                    await self.poll()
                except UnavailableError as error:
                    log.warning("leases not read", error=str(error))
            took = (self._clock.now() - begin).total_seconds()
            await self._sleep(max(interval_seconds / 3, interval_seconds - took))

    async def poll(self) -> None:
        """Reads all leases once, from the apiserver's watch cache (resourceVersion 0): cheap for etcd."""
        body = await self._api.get(paths.NODE_LEASES, {"resourceVersion": "0"})
        leases = observe(self._cache.node_leases, node_leases(body), self._clock.now())
        self._cache.node_leases = leases
        late = leases.late_nodes()
        if late != self._late:
            self._cache.tracker.note_nodes({name for name, _ in late ^ self._late})
            self._late = late
            self._cache.dirty.set()
