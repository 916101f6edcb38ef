"""Decides whether the devices of a claim can be given to its containers now. Pure.

kube-scheduler adds up what claims have of a device. It does not know containers that outlive their pod, those that have
the device by a device plugin, devices that are reserved for pods whose claims it has not seen yet, or faults of the
last seconds.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gpufleet_agent.dra.devices import ClaimableGpu
from gpufleet_agent.dra.prepared_claim import PreparedClaim, PreparedDevice
from gpufleet_agent.kube.model import Assignment
from gpufleet_agent.kube.resource_claims import AllocatedClaim, AllocatedDevice
from gpufleet_agent.podresources.holdings import OtherHolders


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a claim cannot be prepared now."""

    message: str
    may_end: bool = True
    """Whether waiting can help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObstacleInput:
    """Observation of the node's devices at one time."""

    gpus: Mapping[str, ClaimableGpu]
    """By name."""
    assignments: tuple[Assignment, ...] | None
    """The reservations; None: not read yet."""
    others: tuple[PreparedClaim, ...] = ()
    """Other claims whose containers have devices, or may still have them."""
    holders: OtherHolders = field(default_factory=dict)
    """Who has devices in another way than by a claim of this driver, as the kubelet lists it."""
    missing_files: Mapping[str, str] = field(default_factory=dict)
    """By UUID, why a container cannot get a device that has no fault."""


def find_obstacle(claim: AllocatedClaim, node: ObstacleInput) -> Obstacle | None:
    """Returns the first reason why the claim cannot be prepared; None: it can be."""
    if not claim.devices:
        return Obstacle(f"claim {claim} has no device of this node")
    if node.assignments is None:
        return Obstacle("the reservations of this node were not read yet")
    mismatch = _reservation_mismatch(claim, node)
    if mismatch is not None:
        return mismatch
    for allocated in claim.devices:
        gpu = node.gpus.get(allocated.device)
        if gpu is None:
            return Obstacle(f"device {allocated.device} is not known on this node")
        found = _device_obstacle(claim, allocated, gpu, node)
        if found is not None:
            return found
    return None


def prepared_devices(claim: AllocatedClaim, gpus: Mapping[str, ClaimableGpu]) -> tuple[PreparedDevice, ...]:
    """Returns the devices of a claim. A claim with all memory of a device has the whole device."""
    return tuple(
        PreparedDevice(
            request=allocated.request,
            uuid=gpus[allocated.device].uuid,
            share_id=allocated.share_id,
            memory_mib=_share_mib(allocated, gpus[allocated.device]),
        )
        for allocated in claim.devices
    )


def blocking(
    claim: AllocatedClaim, gpus: Mapping[str, ClaimableGpu], others: Iterable[PreparedClaim]
) -> frozenset[str]:
    """Returns the UIDs of the other claims that leave too little of a device for this one."""
    known = tuple(others)
    found = set[str]()
    for allocated in claim.devices:
        gpu = gpus.get(allocated.device)
        if gpu is not None:
            found.update(other.uid for other in _in_the_way(claim, allocated, gpu, known))
    return frozenset(found)


def assignment_of(
    pod_uids: frozenset[str], uuids: Iterable[str], assignments: Iterable[Assignment]
) -> Assignment | None:
    """Returns the reservation of one of the pods that has all of the devices."""
    wanted = set(uuids)
    for assignment in assignments:
        if assignment.pod_uid in pod_uids and wanted <= set(assignment.devices):
            return assignment
    return None


def _device_obstacle(
    claim: AllocatedClaim, allocated: AllocatedDevice, gpu: ClaimableGpu, node: ObstacleInput
) -> Obstacle | None:
    return (
        _unusable(gpu, node)
        or _reserved_for_others(claim, allocated, gpu, node)
        or _held_by_others(claim, allocated, gpu, node)
        or _held_without_claim(allocated, gpu, node)
    )


def _unusable(gpu: ClaimableGpu, node: ObstacleInput) -> Obstacle | None:
    if gpu.faults:
        return Obstacle(f"device {gpu.uuid} is unhealthy: {', '.join(gpu.faults)}", may_end=gpu.may_recover)
    if gpu.uuid in node.missing_files:
        return Obstacle(f"device {gpu.uuid}: {node.missing_files[gpu.uuid]}")
    return None


def _reservation_mismatch(claim: AllocatedClaim, node: ObstacleInput) -> Obstacle | None:
    """A pod with a reservation must have exactly the reserved devices."""
    mine = (each for each in node.assignments or () if each.pod_uid in claim.pod_uids)
    reserved = {uuid for each in mine for uuid in each.devices}
    claimed = {gpu.uuid for each in claim.devices if (gpu := node.gpus.get(each.device)) is not None}
    if not reserved or claimed <= reserved:
        return None
    return Obstacle(
        f"claim {claim} has {', '.join(sorted(claimed - reserved))}, "
        f"but its pod's reservation has {', '.join(sorted(reserved))}"
    )


def _reserved_for_others(
    claim: AllocatedClaim, allocated: AllocatedDevice, gpu: ClaimableGpu, node: ObstacleInput
) -> Obstacle | None:
    pod_uids, shared = claim.pod_uids, _share_mib(allocated, gpu) is not None
    for each in node.assignments or ():
        if each.pod_uid in pod_uids or gpu.uuid not in each.devices or (shared and each.memory_mib is not None):
            continue
        return Obstacle(f"device {gpu.uuid} is reserved for pod {each.namespace}/{each.pod}")
    return None


def _held_by_others(
    claim: AllocatedClaim, allocated: AllocatedDevice, gpu: ClaimableGpu, node: ObstacleInput
) -> Obstacle | None:
    holding = _in_the_way(claim, allocated, gpu, node.others)
    if not holding:
        return None
    names = ", ".join(f"{other} (pod {', '.join(pod.name for pod in other.pods) or 'unknown'})" for other in holding)
    return Obstacle(f"device {gpu.uuid} is still prepared for claim {names}")


def _held_without_claim(allocated: AllocatedDevice, gpu: ClaimableGpu, node: ObstacleInput) -> Obstacle | None:
    shared = _share_mib(allocated, gpu) is not None
    for holder in node.holders.get(gpu.uuid, ()):
        if not (shared and holder.shared):
            return Obstacle(f"device {gpu.uuid} is held by {holder.key} as {holder.resource}")
    return None


def _in_the_way(
    claim: AllocatedClaim, allocated: AllocatedDevice, gpu: ClaimableGpu, others: Iterable[PreparedClaim]
) -> list[PreparedClaim]:
    """Returns the other claims that have the device, unless it has enough memory left beside them."""
    holding = [other for other in others if other.uid != claim.uid and other.holds(gpu.uuid)]
    held = [device.memory_mib for other in holding for device in other.devices if device.uuid == gpu.uuid]
    wanted = _share_mib(allocated, gpu)
    if wanted is None or gpu.memory_mib is None or None in held:
        return holding
    return [] if wanted + sum(memory or 0 for memory in held) <= gpu.memory_mib else holding


def _share_mib(allocated: AllocatedDevice, gpu: ClaimableGpu) -> int | None:
    """Returns the claimed memory; None: the whole device."""
    memory = allocated.memory_mib
    whole = memory is None or (gpu.memory_mib is not None and memory >= gpu.memory_mib)
    return None if whole else memory
