"""Reads the kubelet's PodResources list every few seconds, and immediately after an allocation.

A failed list changes nothing, however long it lasts: the last known holders are the best information there is, and
dropping them would offer their devices. `gpufleet_agent_podresources_list_age_seconds` and readiness show the failure.
"""

import asyncio
import random
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import structlog

from gpufleet_agent.kube.model import Assignment
from gpufleet_agent.podresources.claimed_devices import ClaimedDevices
from gpufleet_agent.podresources.client import Lister, ListingError
from gpufleet_agent.podresources.completeness import CompletenessCheck
from gpufleet_agent.podresources.holdings import Holdings
from gpufleet_agent.podresources.listing import Listing
from gpufleet_agent.podresources.terminating_pods import TerminatingPods
from gpufleet_agent.runtime.instruments import Instruments
from gpufleet_agent.runtime.version_signal import VersionSignal

log = structlog.get_logger(__name__)

LIST_TIMEOUT_SECONDS = 2.0
"""An allocation that begins during the call waits for its end, so it must not take long."""

IDLE_WAIT_SECONDS = 5.0
"""How long a poll waits for a moment without allocations before the loop continues.

If there is none for longer, pods follow each other, and a list was made just before each of them
(`list_for_allocation`). So nothing is missed, and the loop does not look as if it hangs.
"""


class PodResourcesPoller:
    """Keeps `holdings` up to date.

    Args:
        lister: Source of lists.
        holdings: Holdings to update.
        completeness: Detects lists that lack pods.
        claims: Adds the devices of ResourceClaims.
        terminating_pods: Adds the containers that run although the kubelet dropped them.
        assignments: Returns the reservations of this node; None: not read yet.
        idle: Waits for a moment without an allocation in flight (`InFlightAllocation.idle`).
        changes: Notified when a list differs from the one before.
        counters: Counts lists.
        interval_seconds: Mean time between two lists.
        rng: Source of the jitter that keeps the nodes of a cluster, and the agents of a node, out of step.
    """

    def __init__(
        self,
        lister: Lister,
        holdings: Holdings,
        completeness: CompletenessCheck,
        *,
        claims: ClaimedDevices,
        terminating_pods: TerminatingPods,
        assignments: Callable[[], Iterable[Assignment] | None],
        idle: Callable[[], AbstractAsyncContextManager[None]],
        changes: VersionSignal,
        counters: Instruments,
        interval_seconds: float = 3.0,
        rng: random.Random,
    ) -> None:
        self._lister = lister
        self._holdings = holdings
        self._completeness = completeness
        self._claims = claims
        self._terminating_pods = terminating_pods
        self._assignments = assignments
        self._idle = idle
        self._changes = changes
        self._counters = counters
        self._interval_seconds = interval_seconds
        self._rng = rng
        self._due = asyncio.Event()
        self._failing = False

    def poll_soon(self) -> None:
        """Polls as soon as no allocation is in flight."""
        self._due.set()

    async def run(self, beat: Callable[[], None]) -> None:
        """Polls without end, also while the kubelet is down. Calls `beat` in each iteration."""
        while True:
            beat()
            self._due.clear()
            if not await self.poll():
                continue
            # Outside of the idle moment: an allocation must not wait for the apiserver.
            if await self._claims.refresh():
                continue
            try:
                async with asyncio.timeout(self._interval_seconds * self._rng.uniform(0.8, 1.2)):
                    await self._due.wait()
            except TimeoutError:
                pass

    async def poll(self) -> bool:
        """Lists once; returns False if there was no moment without an allocation."""
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(IDLE_WAIT_SECONDS):
                    await stack.enter_async_context(self._idle())
            except TimeoutError:
                return False
            try:
                listing, began = await self._list("Poll", LIST_TIMEOUT_SECONDS)
            except ListingError as error:
                if not self._failing:
                    log.warning("PodResources list failed", error=str(error))
                self._failing = True
                return True
            # Inside the idle moment: an allocation before it is in this list, or was never completed.
            await self.accept(listing, began)
        if self._failing:
            log.info("PodResources list succeeded again")
        self._failing = False
        return True

    async def list_for_allocation(self, timeout_seconds: float) -> Listing:
        """Returns a list made now, with what is known of pods that a kubelet that has just started leaves out.

        Called inside GetPreferredAllocation, when nothing of the pod has been allocated yet.

        Raises:
            ListingError: No response within the timeout.
        """
        return await self.accept(*await self._list("Allocation", timeout_seconds))

    async def accept(self, listing: Listing, began: float) -> Listing:
        """Updates the holdings from a list made while no device was allocated.

        Returns the list, with what is known of pods that it lacks: because the kubelet has just started, or because
        they were deleted by force and still run.

        Args:
            listing: The list.
            began: Loop time at which it was requested.
        """
        listing = self._claims.resolve(listing)
        complete = self._completeness.check(listing, asyncio.get_running_loop().time())
        if complete:
            listing = await self._terminating_pods.complete(listing, self._assignments(), self._holdings.allocated)
        if self._holdings.update(listing, began, complete=complete):
            self._changes.notify()
        return self._holdings.listing

    async def _list(self, caller: str, timeout_seconds: float) -> tuple[Listing, float]:
        """Returns a list and the loop time at which it was requested."""
        began = asyncio.get_running_loop().time()
        try:
            listing = await self._lister.list(timeout_seconds)
        except ListingError:
            self._counters.listing_failures.labels(caller).inc()
            raise
        self._counters.listing_seconds.labels(caller).observe(asyncio.get_running_loop().time() - began)
        return listing, began
