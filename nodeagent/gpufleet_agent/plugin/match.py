"""Who is asking, and what it gets: the decision of the hand-over, without any I/O.

The kubelet's requests name no pod. But it admits pods one after the other, and while it waits for the answer to
GetPreferredAllocation its PodResources list already shows the pod under admission, without devices. So the one
listed container that has an open assignment of this resource and size, and none of its devices yet, is who asks.

Whole devices and slots of shared ones are two resources of the same devices, and the kubelet keeps no account across
resources. So a request for either looks at the reservations and holders of both: a device that is used as a whole has
no sharers, and a shared one is not given as a whole.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from gpufleet_agent.kube.model import Assignment
from gpufleet_agent.plugin.types import (
    AdvertisedDevice,
    AllocationRequest,
    AllocationResult,
    ManagedAllocation,
    Rejection,
    RejectionReason,
    UnmanagedAllocation,
)
from gpufleet_agent.podresources.listing import ContainerKey, Listing
from gpufleet_common.device_ids import device_of, slot_order


@dataclass(frozen=True, slots=True)
class MatchInput:
    """Everything that a decision rests on."""

    resource: str
    devices: tuple[AdvertisedDevice, ...]
    assignments: tuple[Assignment, ...]
    listing: Listing
    shared_resource: str = ""
    """The resource of slots; empty: there is none."""

    @property
    def shares(self) -> bool:
        """Whether slots are asked for."""
        return self.is_shared(self.resource)

    def is_shared(self, resource: str) -> bool:
        """Whether a resource's devices are slots. One that nobody knows any more counts as whole devices."""
        return bool(self.shared_resource) and resource == self.shared_resource

    def rivals(self) -> list[Assignment]:
        """The assignments whose devices can't be given to another: all of them, or those of whole devices."""
        return [each for each in self.assignments if not (self.shares and self.is_shared(each.resource))]

    def holders(self) -> dict[str, ContainerKey]:
        """Who holds a device in a way that keeps it from another, under whatever resource, by UUID."""
        return {
            device_of(device_id): listed.key
            for listed in self.listing
            for resource, ids in listed.devices.items()
            if not (self.shares and self.is_shared(resource))
            for device_id in ids
        }

    def sharers(self) -> dict[str, set[ContainerKey]]:
        """Who shares a device, or has reserved a share, by UUID."""
        found: dict[str, set[ContainerKey]] = {}
        for listed in self.listing:
            for device_id in listed.of(self.shared_resource):
                found.setdefault(device_of(device_id), set()).add(listed.key)
        for assignment in self.assignments:
            if self.is_shared(assignment.resource):
                for uuid in assignment.devices:
                    found.setdefault(uuid, set()).add(key_of(assignment))
        return found


def match_request(ask: AllocationRequest, situation: MatchInput) -> AllocationResult:
    """Find out who asks, and say what it gets."""
    candidates = candidate_assignments(ask.size, situation)
    if len(candidates) > 1:
        names = ", ".join(sorted(str(key_of(candidate)) for candidate in candidates))
        message = f"{len(candidates)} containers could be asking: {names}"
        return Rejection(RejectionReason.AMBIGUOUS_POD, message, tuple(candidates))
    if not candidates:
        return allocate_unreserved(ask, situation)
    return allocate_assigned(candidates[0], ask, situation)


def candidate_assignments(size: int, situation: MatchInput) -> list[Assignment]:
    """The assignments of this resource and size whose container is listed without any device of the resource."""
    waiting = {listed.key for listed in situation.listing if not listed.of(situation.resource)}
    return [
        assignment
        for assignment in situation.assignments
        if assignment.resource == situation.resource
        and len(assignment.devices) == size
        and key_of(assignment) in waiting
    ]


def allocate_assigned(
    assignment: Assignment, ask: AllocationRequest, situation: MatchInput
) -> ManagedAllocation | Rejection:
    """Give the assignment's devices, if nothing at all speaks against one of them."""
    asks = key_of(assignment)

    def refuse(reason: RejectionReason, message: str) -> Rejection:
        return Rejection(reason, message, (assignment,))

    known = {device.uuid: device for device in situation.devices}
    holders = situation.holders()
    claimed = {
        uuid: other for other in situation.rivals() if other.pod_uid != assignment.pod_uid for uuid in other.devices
    }
    offered = _offered(ask)
    for uuid in assignment.devices:
        if uuid not in known:
            return refuse(RejectionReason.DEVICE_UNKNOWN, f"{asks} is assigned {uuid}, which this node lacks")
        if uuid in claimed:
            return refuse(
                RejectionReason.RESERVATION_CONFLICT, f"{uuid} is assigned to {asks} and to {key_of(claimed[uuid])}"
            )
        if uuid in holders:
            return refuse(RejectionReason.DEVICE_HELD, f"{uuid} of {asks} is still held by {holders[uuid]}")
        if known[uuid].obstacle:
            return refuse(
                RejectionReason.DEVICE_FILES_NOT_READY,
                f"{uuid} of {asks} can't be given to a container: {known[uuid].obstacle}",
            )
        if not known[uuid].healthy:
            return refuse(RejectionReason.DEVICE_UNHEALTHY, f"{uuid} of {asks} is unhealthy")
        if uuid not in offered:
            return refuse(RejectionReason.DEVICE_UNAVAILABLE, f"the kubelet doesn't offer {uuid} of {asks}")
    devices = _in_index_order(assignment.devices, situation)
    ids = tuple(offered[uuid][0] for uuid in devices)
    if not ask.must_include <= set(ids):
        forced = _names(ask.must_include.difference(ids))
        return refuse(
            RejectionReason.REQUIRED_DEVICE_UNAVAILABLE, f"the kubelet insists on {forced}, not assigned to {asks}"
        )
    return ManagedAllocation(assignment, devices, ids if situation.shares else ())


def allocate_unreserved(ask: AllocationRequest, situation: MatchInput) -> UnmanagedAllocation | Rejection:
    """Give unreserved devices, lowest index first. Reserved, held, unhealthy or unknown ones never.

    Only when no process is left on them: a container's end isn't always that of its processes, and not all are in
    containers. (Reserved ones were without when the operator picked them.) On a device that is shared already they are
    those of its sharers.

    Of shared devices one slot each, and those first that are shared already: they can't be given as a whole anyway.
    """
    forced = {device_of(device_id) for device_id in ask.must_include}
    reserved = {uuid for assignment in situation.rivals() for uuid in assignment.devices}
    if forced & reserved:
        return Rejection(
            RejectionReason.REQUIRED_DEVICE_UNAVAILABLE,
            f"the kubelet insists on reserved devices: {_names(forced.intersection(reserved))}",
        )
    barred = reserved.union(situation.holders()) - forced
    offered, sharers = _offered(ask), situation.sharers() if situation.shares else {}
    usable = [
        device.uuid
        for device in sorted(situation.devices, key=_index)
        if device.healthy and device.uuid in offered and device.uuid not in barred
    ]
    busy = {device.uuid for device in situation.devices if device.in_use}.difference(sharers)
    idle = [uuid for uuid in usable if uuid not in busy or uuid in forced]
    # What the kubelet insists on is the pod's already, by way of an init container: it comes first.
    chosen = sorted(idle, key=lambda uuid: (uuid not in forced, uuid not in sharers, len(sharers.get(uuid, ()))))
    devices = _in_index_order(chosen[: ask.size], situation)
    ids = tuple(offered[uuid][0] for uuid in devices)
    if not ask.must_include <= set(ids):
        missing = _names(ask.must_include.difference(ids))
        return Rejection(
            RejectionReason.REQUIRED_DEVICE_UNAVAILABLE,
            f"the kubelet insists on devices that can't be given: {missing}",
        )
    if len(devices) < ask.size:
        return Rejection(
            RejectionReason.INSUFFICIENT_UNRESERVED_DEVICES,
            f"a pod without an assignment asks for {ask.size} devices; of {len(offered)} offered, "
            f"{len(usable)} are healthy, unreserved and unheld"
            + (
                f", but processes are, or may be, left on {len(usable) - len(idle)} of them"
                if len(idle) < len(usable)
                else ""
            ),
        )
    return UnmanagedAllocation(devices, ids if situation.shares else ())


def first_fit(ask: AllocationRequest, situation: MatchInput, honoured: frozenset[str]) -> AllocationResult:
    """Guess who asks, by size and age, as plugins without the kubelet's list must. For diagnosis only.

    It shows what `match_request` is good for: two pods of equal size may get each other's devices.

    Args:
        ask: The request.
        situation: As for `match_request`; the listing is not looked at.
        honoured: Pod UIDs whose assignment was given away already.
    """
    offered = _offered(ask)
    candidates = [
        assignment
        for assignment in situation.assignments
        if assignment.resource == situation.resource
        and len(assignment.devices) == ask.size
        and assignment.pod_uid not in honoured
        and all(uuid in offered for uuid in assignment.devices)
    ]
    blind = MatchInput(
        situation.resource,
        situation.devices,
        situation.assignments,
        listing=(),
        shared_resource=situation.shared_resource,
    )
    if not candidates:
        return allocate_unreserved(ask, blind)
    return allocate_assigned(min(candidates, key=lambda assignment: assignment.decided_at), ask, blind)


def check_allocate(answered: AllocationResult | None, asked: frozenset[str]) -> AllocationResult:
    """What Allocate does: carry out what was just answered, refusals included.

    Args:
        answered: The answer to the last GetPreferredAllocation, or None when there is none that still counts.
        asked: The device IDs that Allocate names.
    """
    match answered:
        case None:
            return Rejection(
                RejectionReason.NO_PREFERRED_ALLOCATION, f"nobody asked which devices to prefer before {_names(asked)}"
            )
        case Rejection():
            return answered
        case ManagedAllocation() | UnmanagedAllocation():
            if asked == frozenset(answered.ids):
                return answered
            return Rejection(
                RejectionReason.PREFERRED_ALLOCATION_IGNORED,
                f"answered {_names(answered.ids)}, but asked for {_names(asked)}",
            )


def key_of(assignment: Assignment) -> ContainerKey:
    """The assignment's container, named as the kubelet's list names it."""
    return ContainerKey(assignment.namespace, assignment.pod, assignment.container)


def _offered(ask: AllocationRequest) -> dict[str, list[str]]:
    """The device IDs on offer by UUID; first what the kubelet insists on, then the lowest slot."""
    offered: dict[str, list[str]] = {}
    for device_id in sorted(ask.available, key=lambda each: (each not in ask.must_include, slot_order(each))):
        offered.setdefault(device_of(device_id), []).append(device_id)
    return offered


def _in_index_order(uuids: Iterable[str], situation: MatchInput) -> tuple[str, ...]:
    wanted = frozenset(uuids)
    return tuple(device.uuid for device in sorted(situation.devices, key=_index) if device.uuid in wanted)


def _index(device: AdvertisedDevice) -> int:
    return device.index


def _names(uuids: Iterable[str]) -> str:
    return ", ".join(sorted(uuids)) or "no device"
