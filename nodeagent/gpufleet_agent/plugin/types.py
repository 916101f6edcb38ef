"""The words of the hand-over: what is asked, what may be answered, and why not."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from gpufleet_agent.kube.model import Assignment


class RejectionReason(StrEnum):
    """Why an allocation is refused; the label of a counter, so each one is a constant."""

    AMBIGUOUS_POD = "AmbiguousPod"
    """More than one listed container could be the one that asks."""
    RESERVATION_CONFLICT = "ReservationConflict"
    """Another assignment names the same device, and one of the two wants it whole."""
    DEVICE_HELD = "DeviceHeld"
    """The kubelet lists another container as the device's holder, and one of the two wants it whole."""
    DEVICE_UNAVAILABLE = "DeviceUnavailable"
    """The kubelet doesn't offer the device, or no slot of it."""
    DEVICE_UNHEALTHY = "DeviceUnhealthy"
    DEVICE_UNKNOWN = "DeviceUnknown"
    REQUIRED_DEVICE_UNAVAILABLE = "RequiredDeviceUnavailable"
    """The kubelet insists on a device that this pod must not have."""
    INSUFFICIENT_UNRESERVED_DEVICES = "InsufficientUnreservedDevices"
    POD_RESOURCES_UNAVAILABLE = "PodResourcesUnavailable"
    RESERVATIONS_UNKNOWN = "ReservationsUnknown"
    """Never read since the agent started, so any device may be reserved."""
    MULTIPLE_CONTAINERS = "MultipleContainers"
    NO_PREFERRED_ALLOCATION = "NoPreferredAllocation"
    """Allocate without a preceding GetPreferredAllocation, or too long after it."""
    PREFERRED_ALLOCATION_IGNORED = "PreferredAllocationIgnored"
    """Allocate names other devices than were answered."""
    DEVICE_FILES_NOT_READY = "DeviceFilesNotReady"
    """What the container runtime needs to know of the devices could not be put in place."""


@dataclass(frozen=True, slots=True)
class AdvertisedDevice:
    """A device that the plugin advertises."""

    uuid: str
    index: int
    healthy: bool
    in_use: bool = False
    """Whether processes were or may have been on it when they were last counted, some seconds ago."""
    profile: str | None = None
    """The kind of partition, where each kind has its own resource."""
    nodes: tuple[str, ...] = ()
    """Paths of the device nodes that a container needs to use it, whether or not each exists."""
    obstacle: str = ""
    """Why it is told to the kubelet as unhealthy although it has no fault; empty: it isn't."""


@dataclass(frozen=True, slots=True)
class AllocationRequest:
    """One container request of GetPreferredAllocation. Device IDs: UUIDs or slots, as the resource has them."""

    available: frozenset[str]
    size: int
    must_include: frozenset[str] = frozenset()


class Allocation:
    """Devices for one container, as the kubelet names them."""

    __slots__ = ()
    outcome: ClassVar[str]
    """Value of the metric's label."""
    devices: tuple[str, ...]
    slots: tuple[str, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """What the kubelet calls them."""
        return self.slots or self.devices


@dataclass(frozen=True, slots=True)
class ManagedAllocation(Allocation):
    """The pod of an assignment asks; it gets exactly the assignment's devices."""

    outcome: ClassVar[str] = "Managed"
    assignment: Assignment
    devices: tuple[str, ...]
    """UUIDs in index order."""
    slots: tuple[str, ...] = ()
    """One of each device, in the same order; empty: whole devices."""


@dataclass(frozen=True, slots=True)
class UnmanagedAllocation(Allocation):
    """A pod without an assignment asks; it gets devices that nobody has reserved."""

    outcome: ClassVar[str] = "Unmanaged"
    devices: tuple[str, ...]
    """UUIDs in index order."""
    slots: tuple[str, ...] = ()
    """One of each device, in the same order; empty: whole devices."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """The pod must not start. The kubelet fails it for good, and whoever made it makes another."""

    reason: RejectionReason
    message: str
    claims: tuple[Assignment, ...] = ()
    """Of the pods that it is about, as far as they are known."""


AllocationResult = ManagedAllocation | UnmanagedAllocation | Rejection
