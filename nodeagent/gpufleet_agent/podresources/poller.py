"""Reads the kubelet's list every few seconds, and at once after an allocation."""

import asyncio
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import structlog

from gpufleet_agent.changes import Changes
from gpufleet_agent.metrics.counters import Counters
from gpufleet_agent.podresources.client import Lister, ListingError
from gpufleet_agent.podresources.holdings import Holdings

log = structlog.get_logger(__name__)

LIST_TIMEOUT_SECONDS = 2.0
"""An allocation that begins during the call waits for its end, so it must not take long."""


class Poller:
    """Keeps `holdings` fresh.

    Args:
        lister: Where lists come from.
        holdings: What is kept fresh.
        quiet: Gives a moment in which no allocation is in flight (`Admission.quiet`).
        changes: Told when a list differs from the one before.
        counters: Where lists are counted.
        interval_seconds: Mean time between two lists.
        rng: Source of the jitter that keeps the nodes of a cluster, and the agents of a node, out of step.
    """

    def __init__(
        self,
        lister: Lister,
        holdings: Holdings,
        quiet: Callable[[], AbstractAsyncContextManager[None]],
        changes: Changes,
        counters: Counters,
        *,
        interval_seconds: float = 3.0,
        rng: random.Random,
    ) -> None:
        self._lister = lister
        self._holdings = holdings
        self._quiet = quiet
        self._changes = changes
        self._counters = counters
        self._interval_seconds = interval_seconds
        self._rng = rng
        self._poked = asyncio.Event()
        self._failing = False

    def poke(self) -> None:
        """List again as soon as no allocation is in flight."""
        self._poked.set()

    async def run(self, beat: Callable[[], None]) -> None:
        """List forever; a kubelet that is away is waited for. Calls `beat` each time round."""
        while True:
            beat()
            self._poked.clear()
            await self.poll()
            try:
                async with asyncio.timeout(self._interval_seconds * self._rng.uniform(0.8, 1.2)):
                    await self._poked.wait()
            except TimeoutError:
                pass

    async def poll(self) -> None:
        """List once."""
        async with self._quiet():
            began = asyncio.get_running_loop().time()
            try:
                listing = await self._lister.list(LIST_TIMEOUT_SECONDS)
            except ListingError as error:
                self._counters.listing_failures.labels("Poll").inc()
                if not self._failing:
                    log.warning("the kubelet does not list its pods' devices", error=str(error))
                self._failing = True
                return
            self._counters.listing_seconds.labels("Poll").observe(asyncio.get_running_loop().time() - began)
            # Still within the quiet moment: what was handed out before it is in this list, or never came to be.
            changed = self._holdings.update(listing, began)
        if self._failing:
            log.info("the kubelet lists its pods' devices again")
        self._failing = False
        if changed:
            self._changes.notify()
