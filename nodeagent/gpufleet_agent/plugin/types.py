"""Request and result of a device allocation."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from gpufleet_agent.kube.model import Assignment


class RejectionReason(StrEnum):
    """Why an allocation is rejected. Reason of an event on the pod and label value of a counter."""

    AMBIGUOUS_POD = "AmbiguousPod"
    """More than one listed container matches the request."""
    RESERVATION_CONFLICT = "ReservationConflict"
    """Two reservations name the device, and at least one of them is for the whole device."""
    DEVICE_HELD = "DeviceHeld"
    """The kubelet lists another container as the holder, and one of the two needs the whole device."""
    DEVICE_UNAVAILABLE = "DeviceUnavailable"
    """The kubelet does not offer the device, or no slot of it."""
    DEVICE_UNHEALTHY = "DeviceUnhealthy"
    DEVICE_UNKNOWN = "DeviceUnknown"
    REQUIRED_DEVICE_UNAVAILABLE = "RequiredDeviceUnavailable"
    """The kubelet requires a device that the pod must not get."""
    INSUFFICIENT_UNRESERVED_DEVICES = "InsufficientUnreservedDevices"
    POD_RESOURCES_UNAVAILABLE = "PodResourcesUnavailable"
    """The kubelet did not return its PodResources list."""
    RESERVATIONS_UNKNOWN = "ReservationsUnknown"
    """Reservations were never read since the agent started, so any device may be reserved."""
    MULTIPLE_CONTAINERS = "MultipleContainers"
    NO_PREFERRED_ALLOCATION = "NoPreferredAllocation"
    """Allocate without a GetPreferredAllocation before it, or too long after it."""
    PREFERRED_ALLOCATION_IGNORED = "PreferredAllocationIgnored"
    """Allocate names devices other than the preferred ones."""
    DEVICE_FILES_NOT_READY = "DeviceFilesNotReady"
    """The CDI file or the device nodes are not in place."""


@dataclass(frozen=True, slots=True)
class AdvertisedDevice:
    """A device as the plugin advertises it to the kubelet."""

    uuid: str
    index: int
    healthy: bool
    in_use: bool = False
    """Whether it had processes, or may have had, when they were last counted some seconds ago."""
    profile: str | None = None
    """MIG profile, where each profile has its own resource."""
    nodes: tuple[str, ...] = ()
    """Paths of the device nodes that a container needs, whether or not each exists."""
    obstacle: str = ""
    """Why it is advertised as unhealthy although it has no fault; empty: it is not."""


@dataclass(frozen=True, slots=True)
class AllocationRequest:
    """One container request of GetPreferredAllocation. Device IDs are UUIDs or slots, depending on the resource."""

    available: frozenset[str]
    size: int
    must_include: frozenset[str] = frozenset()


class Allocation:
    """Devices for one container."""

    __slots__ = ()
    outcome: ClassVar[str]
    """Label value of the allocation counter."""
    devices: tuple[str, ...]
    slots: tuple[str, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """Device IDs as the kubelet knows them."""
        return self.slots or self.devices


@dataclass(frozen=True, slots=True)
class ManagedAllocation(Allocation):
    """Exactly the devices of an assignment, for the assignment's container."""

    outcome: ClassVar[str] = "Managed"
    assignment: Assignment
    devices: tuple[str, ...]
    """UUIDs in index order."""
    slots: tuple[str, ...] = ()
    """One slot of each device, in the same order; empty: whole devices."""


@dataclass(frozen=True, slots=True)
class UnmanagedAllocation(Allocation):
    """Unreserved devices, for a pod without an assignment."""

    outcome: ClassVar[str] = "Unmanaged"
    devices: tuple[str, ...]
    """UUIDs in index order."""
    slots: tuple[str, ...] = ()
    """One slot of each device, in the same order; empty: whole devices."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """The container must not start. The kubelet then fails the pod, and its controller creates another."""

    reason: RejectionReason
    message: str
    claims: tuple[Assignment, ...] = ()
    """Assignments of the pods concerned, as far as they are known."""


AllocationResult = ManagedAllocation | UnmanagedAllocation | Rejection
