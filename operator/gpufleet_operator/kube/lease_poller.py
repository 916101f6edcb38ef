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
from gpufleet_operator.model.heartbeats import Heartbeats, observe

log = structlog.get_logger(__name__)


class LeasePoller:
    """Keeps `Cache.heartbeats` current; sets `Cache.dirty` when a kubelet becomes late, expires or returns.

    Args:
        api: The apiserver.
        cache: The cache to update.
        clock: Clock of the apiserver.
        sleep: Waits between two lists.
    """

    def __init__(self, api: Api, cache: Cache, clock: ServerClock, *, sleep: Sleep = asyncio.sleep) -> None:
        self._api, self._cache, self._clock, self._sleep = api, cache, clock, sleep
        self._verdicts: frozenset[tuple[str, bool]] = frozenset()
        """Of the last list: with thousands of nodes they take milliseconds."""

    async def run(self, interval_seconds: float) -> None:
        """Polls until cancelled. A list that gets no response is skipped: it says nothing about the nodes.

        Raises:
            ApiError: The apiserver rejects the request (no permission).
        """
        self._cache.heartbeats = Heartbeats(poll_interval=timedelta(seconds=interval_seconds))
        while True:
            if self._cache.telemetry.items:
                try:
                    await self.poll()
                except UnavailableError as error:
                    log.warning("leases not read", error=str(error))
            await self._sleep(interval_seconds)

    async def poll(self) -> None:
        """Reads all leases once, from the apiserver's watch cache (resourceVersion 0): cheap for etcd."""
        body = await self._api.get(paths.NODE_LEASES, {"resourceVersion": "0"})
        heartbeats = observe(self._cache.heartbeats, node_leases(body), self._clock.now())
        self._cache.heartbeats = heartbeats
        verdicts = heartbeats.verdicts()
        if verdicts != self._verdicts:
            self._cache.tracker.note_nodes({name for name, _ in verdicts ^ self._verdicts})
            self._verdicts = verdicts
            self._cache.dirty.set()
