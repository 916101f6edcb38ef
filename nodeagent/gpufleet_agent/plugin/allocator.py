"""Computes the result of GetPreferredAllocation from the kubelet's list and the reservations, fresh if possible."""

import asyncio
import logging
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

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
from gpufleet_agent.podresources.client import ListingError
from gpufleet_agent.podresources.holdings import Holdings
from gpufleet_agent.podresources.listing import Listing
from gpufleet_agent.runtime.instruments import Instruments

log = structlog.get_logger(__name__)

READ_SECONDS = 0.3
"""How long an allocation waits for one fresh read of the reservations if the cached ones match a pod."""

READ_PATIENCE_SECONDS = 2.0
"""How long it waits if they match none. Failed reads are retried until then.

A pod whose reservation is still on its way to this node must not be treated as unmanaged.
"""

READ_RETRY_SECONDS = 0.2
"""Time between two such reads."""

LIST_SECONDS = 5.0
"""Timeout of the kubelet's list, without which nothing is allocated. The kubelet itself sets no deadline."""


class PodMatching(StrEnum):
    """How the plugin finds the pod that a request is for."""

    POD_RESOURCES = "pod-resources"
    """By the kubelet's PodResources list. For production."""
    FIRST_FIT = "first-fit"
    """By size and age: a guess, which demonstrates in a test what the list is good for."""


class ListingSource(Protocol):
    """PodResources lists for allocations."""

    async def list_for_allocation(self, timeout_seconds: float) -> Listing:
        """Returns a list made now, with what is known of pods that a kubelet that has just started leaves out.

        Raises:
            ListingError: No response within the timeout.
        """


class Allocator:
    """Serves GetPreferredAllocation for one resource.

    Args:
        resource: Resource that the plugin serves.
        shared_resource: Resource of slots, served by this plugin or another; empty: sharing is disabled.
        devices: Returns the advertised devices, without I/O.
        listings: Source of the kubelet's list.
        telemetry: Source of the reservations.
        holdings: Devices allocated so far.
        counters: Counts reads of reservations.
        matching: How the pod is found.
    """

    def __init__(
        self,
        *,
        resource: str,
        shared_resource: str = "",
        devices: Callable[[], tuple[AdvertisedDevice, ...]],
        listings: ListingSource,
        telemetry: TelemetryWatch,
        holdings: Holdings,
        counters: Instruments,
        matching: PodMatching = PodMatching.POD_RESOURCES,
    ) -> None:
        self._resource = resource
        self._shared_resource = shared_resource
        self._devices = devices
        self._listings = listings
        self._telemetry = telemetry
        self._holdings = holdings
        self._counters = counters
        self._matching = matching

    async def preferred_allocation(self, request: AllocationRequest) -> AllocationResult:
        """Finds the pod that a request is for and returns its devices. External failures become rejections."""
        read = asyncio.create_task(self._refresh())
        began = asyncio.get_running_loop().time()
        try:
            listing = await self._list()
            if isinstance(listing, Rejection):
                return listing
            await _wait(read, began + READ_SECONDS)
            outcome = "Fresh" if read.done() and read.result() else "Cached"
            result = self._match(request, listing)
            if (
                not isinstance(result, ManagedAllocation)
                and outcome == "Cached"
                and await self._refresh_patiently(read, began)
            ):
                outcome = "Late"
                result = self._match(request, listing)
            self._counters.reservation_reads.labels(outcome).inc()
            return result
        finally:
            read.cancel()

    def _match(self, request: AllocationRequest, listing: Listing) -> AllocationResult:
        assignments = self._telemetry.assignments
        if assignments is None:
            message = "reservations of this node not read since the agent started"
            return Rejection(RejectionReason.RESERVATIONS_UNKNOWN, message)
        inputs = MatchInput(
            self._resource,
            self._devices(),
            assignments,
            listing,
            self._shared_resource,
            self._telemetry.cordoned(time.time()),
        )
        if self._matching is PodMatching.FIRST_FIT:
            return first_fit(request, inputs, self._holdings.allocated_uids)
        return match_request(request, inputs)

    async def _refresh(self, *, level: int = logging.WARNING) -> bool:
        try:
            await self._telemetry.refresh()
        except (KubeError, ObjectFormatError) as error:
            log.log(level, "fresh read of reservations failed", error=str(error))
            return False
        except Exception:
            # If it propagated, the kubelet would fail the pod for good. The cached reservations are used instead, and
            # `TelemetryWatch.run` fails on the same error.
            log.log(level, "unexpected error in fresh read of reservations", exc_info=True)
            return False
        return True

    async def _refresh_patiently(self, read: "asyncio.Task[bool]", began: float) -> bool:
        """Retries the read until it succeeds or the time is over; returns whether it succeeded."""
        try:
            async with asyncio.timeout_at(began + READ_PATIENCE_SECONDS):
                fresh = await read
                while not fresh:
                    await asyncio.sleep(READ_RETRY_SECONDS)
                    fresh = await self._refresh(level=logging.DEBUG)  # the first failure was logged as a warning
        except TimeoutError:
            return False
        return True

    async def _list(self) -> Listing | Rejection:
        if self._matching is PodMatching.FIRST_FIT:
            return ()
        try:
            return await self._listings.list_for_allocation(LIST_SECONDS)
        except ListingError as error:
            message = f"PodResources list of the kubelet failed: {error}"
            return Rejection(RejectionReason.POD_RESOURCES_UNAVAILABLE, message)


async def _wait(task: asyncio.Task[bool], until: float) -> None:
    """Waits for a task until a loop time, without cancelling it."""
    await asyncio.wait({task}, timeout=max(0.0, until - asyncio.get_running_loop().time()))
