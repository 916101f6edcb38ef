"""Reads the kubelet's list every few seconds, and at once after an allocation.

A list that fails changes nothing, however long it goes on: the holders known last are the best that is known, and to
drop them would offer their devices. `gpufleet_agent_podresources_list_age_seconds` and readiness tell of it.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import structlog

from gpufleet_agent.podresources.client import Lister, ListingError
from gpufleet_agent.podresources.completeness import CompletenessCheck
from gpufleet_agent.podresources.holdings import Holdings
from gpufleet_agent.podresources.listing import Listing
from gpufleet_agent.runtime.instruments import Instruments
from gpufleet_agent.runtime.version_signal import VersionSignal

log = structlog.get_logger(__name__)

LIST_TIMEOUT_SECONDS = 2.0
"""An allocation that begins during the call waits for its end, so it must not take long."""

IDLE_WAIT_SECONDS = 5.0
"""How long a list waits for a moment without allocations, before the loop comes round.

Where there is none for longer, pods come one after the other, and each of them had a list made just before it
(`take_over`); so nothing is missed, and the loop that waits for a good reason isn't taken for a hanging one.
"""


class PodResourcesPoller:
    """Keeps `holdings` fresh.

    Args:
        lister: Where lists come from.
        holdings: What is kept fresh.
        completeness: Tells which lists name everybody.
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
        completeness: CompletenessCheck,
        *,
        quiet: Callable[[], AbstractAsyncContextManager[None]],
        changes: VersionSignal,
        counters: Instruments,
        interval_seconds: float = 3.0,
        rng: random.Random,
    ) -> None:
        self._lister = lister
        self._holdings = holdings
        self._completeness = completeness
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
            if not await self.poll():
                continue
            try:
                async with asyncio.timeout(self._interval_seconds * self._rng.uniform(0.8, 1.2)):
                    await self._poked.wait()
            except TimeoutError:
                pass

    async def poll(self) -> bool:
        """List once; False: there was no moment for it."""
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(IDLE_WAIT_SECONDS):
                    await stack.enter_async_context(self._quiet())
            except TimeoutError:
                return False
            began = asyncio.get_running_loop().time()
            try:
                listing = await self._lister.list(LIST_TIMEOUT_SECONDS)
            except ListingError as error:
                self._counters.listing_failures.labels("Poll").inc()
                if not self._failing:
                    log.warning("the kubelet does not list its pods' devices", error=str(error))
                self._failing = True
                return True
            self._counters.listing_seconds.labels("Poll").observe(asyncio.get_running_loop().time() - began)
            # Still within the quiet moment: what was handed out before it is in this list, or never came to be.
            self.take_over(listing, began)
        if self._failing:
            log.info("the kubelet lists its pods' devices again")
        self._failing = False
        return True

    def take_over(self, listing: Listing, began: float) -> Listing:
        """Take over a list that was made while no allocation was in flight: ours, or one made for an allocation.

        Returns it, with what is known beside it of pods that it lacks because the kubelet has just started.

        Args:
            listing: The list.
            began: Loop time at which it was asked for.
        """
        complete = self._completeness.judge(listing, asyncio.get_running_loop().time())
        if self._holdings.update(listing, began, complete=complete):
            self._changes.notify()
        return self._holdings.listing
