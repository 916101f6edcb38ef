"""Finds the pod that a request is for, and its devices. Pure.

The kubelet's requests name no pod. But the kubelet admits pods one after the other, and during GetPreferredAllocation
its PodResources list already contains the pod being admitted, without devices. So the request is for the one listed
container that has an assignment of this resource and size and none of its devices yet.

Whole devices and slots of shared ones are two resources of the same devices, and the kubelet keeps no account across
resources. A request for either therefore considers the reservations and holders of both: a device in use as a whole
has no sharers, and a shared one is not allocated as a whole.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

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
    """State of the node that a request is matched against."""

    resource: str
    devices: tuple[AdvertisedDevice, ...]
    assignments: tuple[Assignment, ...]
    listing: Listing
    shared_resource: str = ""
    """Resource of slots; empty: sharing is disabled."""
    cordoned: frozenset[str] = frozenset()
    """UUIDs of devices that are out of service: only reservations decided before can still name them."""

    @property
    def requests_slots(self) -> bool:
        """Whether the request is for slots."""
        return self.is_shared(self.resource)

    def is_shared(self, resource: str) -> bool:
        """Returns whether the devices of a resource are slots. Those of an unknown resource count as whole devices."""
        return bool(self.shared_resource) and resource == self.shared_resource

    def conflicting_assignments(self) -> list[Assignment]:
        """Returns the assignments whose devices are not available to another: for slots, those of whole devices."""
        return [each for each in self.assignments if not (self.requests_slots and self.is_shared(each.resource))]

    def conflicting_holders(self) -> dict[str, ContainerKey]:
        """Returns, by UUID, who holds a device so that it is not available to another, under any resource."""
        return {
            device_of(device_id): listed.key
            for listed in self.listing
            for resource, ids in listed.devices.items()
            if not (self.requests_slots and self.is_shared(resource))
            for device_id in ids
        }

    def sharers(self) -> dict[str, set[ContainerKey]]:
        """Returns, by UUID, who shares a device or has a slot of it reserved."""
        found: dict[str, set[ContainerKey]] = {}
        for listed in self.listing:
            for device_id in listed.of(self.shared_resource):
                found.setdefault(device_of(device_id), set()).add(listed.key)
        for assignment in self.assignments:
            if self.is_shared(assignment.resource):
                for uuid in assignment.devices:
                    found.setdefault(uuid, set()).add(key_of(assignment))
        return found


def match_request(request: AllocationRequest, inputs: MatchInput) -> AllocationResult:
    """Finds the container that a request is for and returns its devices."""
    candidates = _first_of_each_pod(candidate_assignments(request.size, inputs))
    if len(candidates) > 1:
        names = ", ".join(sorted(str(key_of(candidate)) for candidate in candidates))
        message = f"{len(candidates)} containers match the request: {names}"
        return Rejection(RejectionReason.AMBIGUOUS_POD, message, tuple(candidates))
    if not candidates:
        return allocate_unreserved(request, inputs)
    return allocate_assigned(candidates[0], request, inputs)


def candidate_assignments(size: int, inputs: MatchInput) -> list[Assignment]:
    """Returns the assignments of this resource and size whose container is listed without a device of the resource.

    A pod that is being admitted has no process yet. One that has a process, although the kubelet lists no device for
    it, got its devices from a kubelet that has lost its checkpoint since.
    """
    running = {(listed.key, listed.pod_uid) for listed in inputs.listing if listed.terminating}
    waiting = {listed.key for listed in inputs.listing if not listed.of(inputs.resource) and not listed.terminating}
    return [
        assignment
        for assignment in inputs.assignments
        if assignment.resource == inputs.resource
        and len(assignment.devices) == size
        and key_of(assignment) in waiting
        and (key_of(assignment), assignment.pod_uid) not in running
    ]


def _first_of_each_pod(candidates: Iterable[Assignment]) -> list[Assignment]:
    """Returns, of the containers of one pod, the one that the kubelet admits first."""
    first: dict[str, Assignment] = {}
    for candidate in sorted(candidates, key=lambda each: each.order):
        first.setdefault(candidate.pod_uid, candidate)
    return list(first.values())


def allocate_assigned(
    assignment: Assignment, request: AllocationRequest, inputs: MatchInput
) -> ManagedAllocation | Rejection:
    """Returns exactly the devices of the assignment, or a rejection if one of them must not be allocated."""
    offered = _offered(request)
    problem = _find_problem(assignment, inputs, frozenset(offered))
    if problem is not None:
        return Rejection(*problem, (assignment,))
    devices = _in_index_order(assignment.devices, inputs)
    ids = tuple(offered[uuid][0] for uuid in devices)
    if not request.must_include <= set(ids):
        required = _names(request.must_include.difference(ids))
        message = f"the kubelet requires {required}, not reserved for {key_of(assignment)}"
        return Rejection(RejectionReason.REQUIRED_DEVICE_UNAVAILABLE, message, (assignment,))
    return ManagedAllocation(assignment, devices, ids if inputs.requests_slots else ())


def allocate_unreserved(request: AllocationRequest, inputs: MatchInput) -> UnmanagedAllocation | Rejection:
    """Returns unreserved devices, lowest index first; never reserved, held, cordoned, unhealthy or unknown ones.

    A device must also be without processes, because processes may outlive their container, and not all run in
    containers. (The operator checked this for reserved devices when it picked them.) On a device that is shared
    already, processes are those of its sharers.

    Of shared devices one slot each is returned. Devices that are shared already come first: they are not available as
    whole devices anyway.
    """
    required = frozenset(map(device_of, request.must_include))
    reserved = {uuid for assignment in inputs.conflicting_assignments() for uuid in assignment.devices}
    if conflicts := required & reserved:
        message = f"the kubelet requires reserved devices: {_names(conflicts)}"
        return Rejection(RejectionReason.REQUIRED_DEVICE_UNAVAILABLE, message)
    offered, sharers = _offered(request), inputs.sharers() if inputs.requests_slots else {}
    excluded = reserved.union(inputs.conflicting_holders(), inputs.cordoned) - required
    usable = [
        device
        for device in sorted(inputs.devices, key=_index)
        if device.healthy and device.uuid in offered and device.uuid not in excluded
    ]
    idle = [device.uuid for device in usable if not device.in_use or device.uuid in sharers or device.uuid in required]
    devices = _in_index_order(_by_preference(idle, required, sharers)[: request.size], inputs)
    ids = tuple(offered[uuid][0] for uuid in devices)
    if not request.must_include <= set(ids):
        missing = _names(request.must_include.difference(ids))
        message = f"the kubelet requires unavailable devices: {missing}"
        return Rejection(RejectionReason.REQUIRED_DEVICE_UNAVAILABLE, message)
    if len(devices) < request.size:
        message = _insufficient(request.size, offered=len(offered), usable=len(usable), idle=len(idle))
        return Rejection(RejectionReason.INSUFFICIENT_UNRESERVED_DEVICES, message)
    return UnmanagedAllocation(devices, ids if inputs.requests_slots else ())


def first_fit(request: AllocationRequest, inputs: MatchInput, allocated: frozenset[str]) -> AllocationResult:
    """Guesses the pod by size and age, like plugins that do not read the kubelet's list. For diagnosis only.

    It demonstrates what `match_request` prevents: two pods of equal size may get each other's devices.

    Args:
        request: The request.
        inputs: As for `match_request`; the listing is ignored.
        allocated: Pod UIDs of the assignments that were allocated already.
    """
    offered = _offered(request)
    candidates = [
        assignment
        for assignment in inputs.assignments
        if assignment.resource == inputs.resource
        and len(assignment.devices) == request.size
        and assignment.pod_uid not in allocated
        and all(uuid in offered for uuid in assignment.devices)
    ]
    without_listing = replace(inputs, listing=())
    if not candidates:
        return allocate_unreserved(request, without_listing)
    oldest = min(candidates, key=lambda assignment: assignment.decided_at)
    return allocate_assigned(oldest, request, without_listing)


def check_allocate(preferred: AllocationResult | None, device_ids: frozenset[str]) -> AllocationResult:
    """Returns the result of Allocate: the preferred allocation, or a rejection.

    Args:
        preferred: Result of the last GetPreferredAllocation; None: there is no valid one.
        device_ids: Device IDs that Allocate names.
    """
    match preferred:
        case None:
            message = f"no GetPreferredAllocation preceded Allocate of {_names(device_ids)}"
            return Rejection(RejectionReason.NO_PREFERRED_ALLOCATION, message)
        case Rejection():
            return preferred
        case ManagedAllocation() | UnmanagedAllocation():
            if device_ids == frozenset(preferred.ids):
                return preferred
            message = f"preferred {_names(preferred.ids)}, but Allocate names {_names(device_ids)}"
            return Rejection(RejectionReason.PREFERRED_ALLOCATION_IGNORED, message)


def key_of(assignment: Assignment) -> ContainerKey:
    """Returns the assignment's container as the kubelet's list names it."""
    return ContainerKey(assignment.namespace, assignment.pod, assignment.container)


def _find_problem(
    assignment: Assignment, inputs: MatchInput, offered: frozenset[str]
) -> tuple[RejectionReason, str] | None:
    """Returns why the devices of an assignment must not be allocated; None: nothing prevents it."""
    container = key_of(assignment)
    known = {device.uuid: device for device in inputs.devices}
    holders = inputs.conflicting_holders()
    conflicts = {
        uuid: key_of(other)
        for other in inputs.conflicting_assignments()
        if other.pod_uid != assignment.pod_uid
        for uuid in other.devices
    }
    for uuid in assignment.devices:
        reserved = f"{uuid} reserved for {container}"
        if uuid not in known:
            return RejectionReason.DEVICE_UNKNOWN, f"{reserved} does not exist on this node"
        if uuid in conflicts:
            return RejectionReason.RESERVATION_CONFLICT, f"{reserved} is also reserved for {conflicts[uuid]}"
        if holders.get(uuid) == container:
            other = _held_as(uuid, container, inputs)
            return RejectionReason.DEVICE_HELD, f"{reserved} is already allocated to this container as {other}"
        if uuid in holders:
            return RejectionReason.DEVICE_HELD, f"{reserved} is still held by {holders[uuid]}"
        if known[uuid].obstacle:
            return RejectionReason.DEVICE_FILES_NOT_READY, f"{reserved} is not ready: {known[uuid].obstacle}"
        if not known[uuid].healthy:
            return RejectionReason.DEVICE_UNHEALTHY, f"{reserved} is unhealthy"
        if uuid not in offered:
            return RejectionReason.DEVICE_UNAVAILABLE, f"{reserved} is not offered by the kubelet"
    return None


def _held_as(uuid: str, container: ContainerKey, inputs: MatchInput) -> str:
    """Returns the resource of the holding, such as `nvidia.com/gpu`."""
    return ", ".join(
        resource
        for listed in inputs.listing
        if listed.key == container
        for resource, ids in listed.devices.items()
        if uuid in map(device_of, ids)
    )


def _by_preference(
    uuids: Iterable[str], required: frozenset[str], sharers: Mapping[str, set[ContainerKey]]
) -> list[str]:
    """Sorts devices by preference; those that the kubelet requires come first.

    The pod has them already: its init container got them.
    """
    return sorted(uuids, key=lambda uuid: (uuid not in required, uuid not in sharers, len(sharers.get(uuid, ()))))


def _insufficient(size: int, *, offered: int, usable: int, idle: int) -> str:
    """Formats counts in the manner of kube-scheduler."""
    causes = {"reserved, held, cordoned or unhealthy": offered - usable, "possibly in use by processes": usable - idle}
    listed = ", ".join(f"{count} {cause}" for cause, count in causes.items() if count)
    available = f"{size} unreserved devices requested, {idle}/{offered} are available"
    return f"{available}: {listed}" if listed else available


def _offered(request: AllocationRequest) -> dict[str, list[str]]:
    """Returns the available device IDs by UUID; first those that the kubelet requires, then by slot number."""
    offered: dict[str, list[str]] = {}
    for device_id in sorted(request.available, key=lambda each: (each not in request.must_include, slot_order(each))):
        offered.setdefault(device_of(device_id), []).append(device_id)
    return offered


def _in_index_order(uuids: Iterable[str], inputs: MatchInput) -> tuple[str, ...]:
    wanted = frozenset(uuids)
    return tuple(device.uuid for device in sorted(inputs.devices, key=_index) if device.uuid in wanted)


def _index(device: AdvertisedDevice) -> int:
    return device.index


def _names(uuids: Iterable[str]) -> str:
    return ", ".join(sorted(uuids)) or "no device"
