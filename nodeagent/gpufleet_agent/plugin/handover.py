"""Who is asking, and what it gets: the decision of the hand-over, without any I/O.

The kubelet's requests name no pod. But it admits pods one after the other, and while it waits for the answer to
GetPreferredAllocation its PodResources list already shows the pod under admission, without devices. So the one
listed container that has an open assignment of this resource and size, and none of its devices yet, is who asks.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from gpufleet_agent.kube.model import Assignment
from gpufleet_agent.podresources.listing import ContainerKey, Listing


class Reason(StrEnum):
    """Why an allocation is refused; the label of a counter, so each one is a constant."""

    TWO_CANDIDATES = "TwoCandidates"
    """More than one listed container could be the one that asks."""
    TWO_CLAIMANTS = "TwoClaimants"
    """Another assignment names the same device."""
    DEVICE_HELD = "DeviceHeld"
    """The kubelet lists another container as the device's holder."""
    DEVICE_UNAVAILABLE = "DeviceUnavailable"
    """The kubelet doesn't offer the device."""
    DEVICE_UNHEALTHY = "DeviceUnhealthy"
    DEVICE_UNKNOWN = "DeviceUnknown"
    FORCED_DEVICE = "ForcedDevice"
    """The kubelet insists on a device that this pod must not have."""
    TOO_FEW_UNRESERVED = "TooFewUnreserved"
    LISTING_FAILED = "ListingFailed"
    RESERVATIONS_UNKNOWN = "ReservationsUnknown"
    """Never read since the agent started, so any device may be reserved."""
    SEVERAL_CONTAINERS = "SeveralContainers"
    NOT_ASKED = "NotAsked"
    """Allocate without a preceding GetPreferredAllocation, or too long after it."""
    OTHER_DEVICES = "OtherDevices"
    """Allocate names other devices than were answered."""


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """A device that the plugin advertises."""

    uuid: str
    index: int
    healthy: bool


@dataclass(frozen=True, slots=True)
class Ask:
    """One container request of GetPreferredAllocation."""

    available: frozenset[str]
    size: int
    must_include: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything that a decision rests on."""

    resource: str
    devices: tuple[KnownDevice, ...]
    assignments: tuple[Assignment, ...]
    listing: Listing


@dataclass(frozen=True, slots=True)
class Managed:
    """The pod of an assignment asks; it gets exactly the assignment's devices."""

    assignment: Assignment
    devices: tuple[str, ...]
    """In index order."""


@dataclass(frozen=True, slots=True)
class Unmanaged:
    """A pod without an assignment asks; it gets devices that nobody has reserved."""

    devices: tuple[str, ...]
    """In index order."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The pod must not start. The kubelet fails it for good, and whoever made it makes another."""

    reason: Reason
    message: str


Answer = Managed | Unmanaged | Refusal


def decide(ask: Ask, situation: Situation) -> Answer:
    """Find out who asks, and say what it gets."""
    candidates = open_assignments(ask.size, situation)
    if len(candidates) > 1:
        names = ", ".join(sorted(str(key_of(candidate)) for candidate in candidates))
        return Refusal(Reason.TWO_CANDIDATES, f"{len(candidates)} containers could be asking: {names}")
    if not candidates:
        return unmanaged(ask, situation)
    return managed(candidates[0], ask, situation)


def open_assignments(size: int, situation: Situation) -> list[Assignment]:
    """The assignments of this resource and size whose container is listed without any device of the resource."""
    waiting = {listed.key for listed in situation.listing if not listed.of(situation.resource)}
    return [
        assignment
        for assignment in situation.assignments
        if assignment.resource == situation.resource
        and len(assignment.devices) == size
        and key_of(assignment) in waiting
    ]


def managed(assignment: Assignment, ask: Ask, situation: Situation) -> Managed | Refusal:
    """Give the assignment's devices, if nothing at all speaks against one of them."""
    wanted = frozenset(assignment.devices)
    known = {device.uuid: device for device in situation.devices}
    holders = _holders(situation)
    claimed = {
        uuid: other for other in situation.assignments if other.pod_uid != assignment.pod_uid for uuid in other.devices
    }
    for uuid in assignment.devices:
        if uuid not in known:
            return Refusal(Reason.DEVICE_UNKNOWN, f"{key_of(assignment)} is assigned {uuid}, which this node lacks")
        if uuid in claimed:
            return Refusal(
                Reason.TWO_CLAIMANTS, f"{uuid} is assigned to {key_of(assignment)} and to {key_of(claimed[uuid])}"
            )
        if uuid in holders:
            return Refusal(Reason.DEVICE_HELD, f"{uuid} of {key_of(assignment)} is still held by {holders[uuid]}")
        if not known[uuid].healthy:
            return Refusal(Reason.DEVICE_UNHEALTHY, f"{uuid} of {key_of(assignment)} is unhealthy")
        if uuid not in ask.available:
            return Refusal(Reason.DEVICE_UNAVAILABLE, f"the kubelet doesn't offer {uuid} of {key_of(assignment)}")
    if not ask.must_include <= wanted:
        forced = ", ".join(sorted(ask.must_include - wanted))
        return Refusal(Reason.FORCED_DEVICE, f"the kubelet insists on {forced}, not assigned to {key_of(assignment)}")
    return Managed(assignment, _in_index_order(wanted, situation.devices))


def unmanaged(ask: Ask, situation: Situation) -> Unmanaged | Refusal:
    """Give unreserved devices, lowest index first. Reserved, held, unhealthy or unknown ones never."""
    reserved = {uuid for assignment in situation.assignments for uuid in assignment.devices}
    forced_reserved = sorted(ask.must_include & reserved)
    if forced_reserved:
        return Refusal(Reason.FORCED_DEVICE, f"the kubelet insists on reserved devices: {', '.join(forced_reserved)}")
    barred = reserved.union(_holders(situation)) - ask.must_include
    usable = [
        device.uuid
        for device in sorted(situation.devices, key=_index)
        if device.healthy and device.uuid in ask.available and device.uuid not in barred
    ]
    # What the kubelet insists on is the pod's already, by way of an init container: it comes first.
    chosen = sorted(usable, key=lambda uuid: uuid not in ask.must_include)[: ask.size]
    if not ask.must_include <= set(chosen):
        missing = ", ".join(sorted(ask.must_include - set(chosen)))
        return Refusal(Reason.FORCED_DEVICE, f"the kubelet insists on devices that can't be given: {missing}")
    if len(chosen) < ask.size:
        return Refusal(
            Reason.TOO_FEW_UNRESERVED,
            f"a pod without an assignment asks for {ask.size} devices; of {len(ask.available)} offered, "
            f"{len(usable)} are healthy, unreserved and unheld",
        )
    return Unmanaged(_in_index_order(frozenset(chosen), situation.devices))


def first_fit(ask: Ask, situation: Situation, honoured: frozenset[str]) -> Answer:
    """Guess who asks, by size and age, as plugins without the kubelet's list must. For diagnosis only.

    It shows what `decide` is good for: two pods of equal size may get each other's devices.

    Args:
        ask: The request.
        situation: As for `decide`; the listing is not looked at.
        honoured: Pod UIDs whose assignment was given away already.
    """
    candidates = [
        assignment
        for assignment in situation.assignments
        if assignment.resource == situation.resource
        and len(assignment.devices) == ask.size
        and assignment.pod_uid not in honoured
        and ask.available.issuperset(assignment.devices)
    ]
    blind = Situation(situation.resource, situation.devices, situation.assignments, listing=())
    if not candidates:
        return unmanaged(ask, blind)
    return managed(min(candidates, key=lambda assignment: assignment.decided_at), ask, blind)


def check(answered: Answer | None, asked: frozenset[str]) -> Answer:
    """What Allocate does: carry out what was just answered, refusals included.

    Args:
        answered: The answer to the last GetPreferredAllocation, or None when there is none that still counts.
        asked: The device IDs that Allocate names.
    """
    match answered:
        case None:
            return Refusal(Reason.NOT_ASKED, f"nobody asked which devices to prefer before {_names(asked)}")
        case Refusal():
            return answered
        case Managed() | Unmanaged():
            if asked == frozenset(answered.devices):
                return answered
            return Refusal(Reason.OTHER_DEVICES, f"answered {_names(answered.devices)}, but asked for {_names(asked)}")


def key_of(assignment: Assignment) -> ContainerKey:
    """The assignment's container, named as the kubelet's list names it."""
    return ContainerKey(assignment.namespace, assignment.pod, assignment.container)


def _holders(situation: Situation) -> dict[str, ContainerKey]:
    return {uuid: listed.key for listed in situation.listing for uuid in listed.of(situation.resource)}


def _in_index_order(uuids: frozenset[str], devices: tuple[KnownDevice, ...]) -> tuple[str, ...]:
    return tuple(device.uuid for device in sorted(devices, key=_index) if device.uuid in uuids)


def _index(device: KnownDevice) -> int:
    return device.index


def _names(uuids: Iterable[str]) -> str:
    return ", ".join(sorted(uuids)) or "no device"
