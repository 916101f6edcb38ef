"""Follows up on allocations: adds the holder, polls the kubelet's list again, records events on rejected pods."""

from typing import Protocol

from gpufleet_agent.kube.event_recorder import EventRecorder
from gpufleet_agent.kube.model import PodEvent
from gpufleet_agent.plugin.types import ManagedAllocation, Rejection, UnmanagedAllocation
from gpufleet_agent.podresources.holdings import Holdings
from gpufleet_agent.podresources.poller import PodResourcesPoller


class AllocationObserver(Protocol):
    """Receives the outcome of each allocation, before the kubelet does."""

    def allocated(self, allocation: ManagedAllocation | UnmanagedAllocation) -> None:
        """Called with the devices that a container gets."""

    def rejected(self, rejection: Rejection) -> None:
        """Called with the reason why a container gets no device."""


class AllocationFollowUp:
    """The observer of a running agent."""

    def __init__(self, holdings: Holdings, poller: PodResourcesPoller, events: EventRecorder) -> None:
        self._holdings = holdings
        self._poller = poller
        self._events = events

    def allocated(self, allocation: ManagedAllocation | UnmanagedAllocation) -> None:
        if isinstance(allocation, ManagedAllocation):
            self._holdings.add(allocation.assignment)
        self._poller.poll_soon()

    def rejected(self, rejection: Rejection) -> None:
        for claim in rejection.claims:
            event = PodEvent(
                namespace=claim.namespace,
                pod=claim.pod,
                pod_uid=claim.pod_uid,
                reason=rejection.reason.value,
                message=rejection.message,
            )
            self._events.record(event)
