"""Gathers what a hand-over decision rests on: a list from the kubelet and the reservations, both fresh if possible."""

import asyncio
import logging
from collections.abc import Callable
from enum import StrEnum

import structlog

from gpufleet_agent.kube.api import KubeError
from gpufleet_agent.kube.model import ObjectFormatError
from gpufleet_agent.kube.telemetry_watch import TelemetryWatch
from gpufleet_agent.plugin.match import MatchInput, first_fit, match_request
from gpufleet_agent.plugin.types import (
    AdvertisedDevice,
    AllocationRequest,
    AllocationResult,
    ManagedAllocation,
    Rejection,
    RejectionReason,
)
from gpufleet_agent.podresources.client import Lister, ListingError
from gpufleet_agent.podresources.holdings import Holdings
from gpufleet_agent.podresources.listing import Listing
from gpufleet_agent.runtime.instruments import Instruments

log = structlog.get_logger(__name__)

READ_SECONDS = 0.3
"""How long an allocation waits for a fresh read of the reservations when memory knows who asks; one read, no second."""

PATIENCE_SECONDS = 2.0
"""How long when memory doesn't: reads that fail, be it at once, are tried again until then.

A pod whose reservation is still on its way here must not pass for an unmanaged one.
"""

RETRY_SECONDS = 0.2
"""Between two such reads."""

LIST_SECONDS = 5.0
"""How long for the kubelet's list; without it nothing can be given. The kubelet itself sets no deadline."""


class PodMatching(StrEnum):
    """How the plugin finds out who asks."""

    ASKING = "asking"
    """From the kubelet's list. The one for use."""
    FIRST_FIT = "first-fit"
    """By size and age: a guess, to show in a test what the list is good for."""


class Allocator:
    """Answers one request of GetPreferredAllocation.

    Args:
        resource: The resource that the plugin serves.
        shared_resource: The one of slots, be it this plugin's or another's; empty: there is none.
        devices: The devices that it advertises, from memory.
        lister: The kubelet's list.
        own: The reservations.
        holdings: What was handed out so far.
        counters: Where reads and lists are counted.
        listed: Told of each list, and the loop time at which it was asked for; returns the one to go by.
        handover: How to find out who asks.
    """

    def __init__(
        self,
        *,
        resource: str,
        shared_resource: str = "",
        devices: Callable[[], tuple[AdvertisedDevice, ...]],
        lister: Lister,
        own: TelemetryWatch,
        holdings: Holdings,
        counters: Instruments,
        listed: Callable[[Listing, float], Listing],
        handover: PodMatching = PodMatching.ASKING,
    ) -> None:
        self._resource = resource
        self._shared_resource = shared_resource
        self._devices = devices
        self._lister = lister
        self._own = own
        self._holdings = holdings
        self._counters = counters
        self._listed = listed
        self._handover = handover

    async def answer(self, ask: AllocationRequest) -> AllocationResult:
        """Find out who asks and what it gets. Never raises for anything that the outside does or leaves undone."""
        read = asyncio.create_task(self._refresh())
        began = asyncio.get_running_loop().time()
        try:
            listing = await self._list()
            if isinstance(listing, Rejection):
                return listing
            await _wait(read, began + READ_SECONDS)
            outcome = "Fresh" if read.done() and read.result() else "Memory"
            answer = self._decide(ask, listing)
            if not isinstance(answer, ManagedAllocation) and outcome == "Memory" and await self._insist(read, began):
                outcome = "Late"
                answer = self._decide(ask, listing)
            self._counters.reservation_reads.labels(outcome).inc()
            return answer
        finally:
            read.cancel()

    def _decide(self, ask: AllocationRequest, listing: Listing) -> AllocationResult:
        assignments = self._own.assignments
        if assignments is None:
            return Rejection(
                RejectionReason.RESERVATIONS_UNKNOWN,
                "the reservations of this node could not be read since the agent started",
            )
        situation = MatchInput(self._resource, self._devices(), assignments, listing, self._shared_resource)
        if self._handover is PodMatching.FIRST_FIT:
            return first_fit(ask, situation, self._holdings.honoured_uids)
        return match_request(ask, situation)

    async def _refresh(self, *, level: int = logging.WARNING) -> bool:
        try:
            await self._own.refresh()
        except (KubeError, ObjectFormatError) as error:
            log.log(level, "reservations not read afresh", error=str(error))
            return False
        except Exception:
            # Raised, it would be the pod's, which the kubelet then fails for good. Memory serves; `own.run` crashes.
            log.log(level, "reservations not read afresh, for no reason that was foreseen", exc_info=True)
            return False
        return True

    async def _insist(self, read: "asyncio.Task[bool]", began: float) -> bool:
        """Read until it succeeds, as long as patience lasts; whether it did."""
        try:
            async with asyncio.timeout_at(began + PATIENCE_SECONDS):
                fresh = await read
                while not fresh:
                    await asyncio.sleep(RETRY_SECONDS)
                    fresh = await self._refresh(level=logging.DEBUG)  # said once
        except TimeoutError:
            return False
        return True

    async def _list(self) -> Listing | Rejection:
        if self._handover is PodMatching.FIRST_FIT:
            return ()
        began = asyncio.get_running_loop().time()
        try:
            listing = await self._lister.list(LIST_SECONDS)
        except ListingError as error:
            self._counters.listing_failures.labels("Allocation").inc()
            return Rejection(RejectionReason.POD_RESOURCES_UNAVAILABLE, f"the kubelet did not say who asks: {error}")
        self._counters.listing_seconds.labels("Allocation").observe(asyncio.get_running_loop().time() - began)
        return self._listed(listing, began)


async def _wait(task: asyncio.Task[bool], until: float) -> None:
    """Wait for a task until a loop time, and leave it running after that."""
    await asyncio.wait({task}, timeout=max(0.0, until - asyncio.get_running_loop().time()))
