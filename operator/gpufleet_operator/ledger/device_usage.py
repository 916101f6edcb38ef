"""Computes the use of each device: its reservations, joined with the holders that the kubelet reports."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from gpufleet_api.telemetry.device import Device, DeviceHolder
from gpufleet_api.telemetry.gpu_telemetry import TelemetryStatus
from gpufleet_api.telemetry.spec import Assignment
from gpufleet_common import timestamps
from gpufleet_operator.ledger.own_use import ObservationTime, counted_memory_mib
from gpufleet_operator.model.demands.promise import placed_mib, shares_its_promise


@dataclass(frozen=True, slots=True)
class DeviceUsage:
    """Use of one device, in the fields of the engine's `DeviceState`."""

    held: bool = False
    sharers: int = 0
    promised_memory_mib: int = 0
    promised_compute_percent: int = 0
    reclaimed_memory_mib: int = 0
    in_flight_memory_mib: int = 0
    in_flight_compute_percent: int = 0


_UNUSED = DeviceUsage()


def by_device(assignments: Iterable[Assignment]) -> dict[str, list[Assignment]]:
    """Groups a node's assignments by the UUIDs that they name."""
    groups: dict[str, list[Assignment]] = {}
    for assignment in assignments:
        for uuid in assignment.devices:
            groups.setdefault(uuid, []).append(assignment)
    return groups


def usage_of(
    device: Device,
    reserved: Sequence[Assignment],
    sampled_at: datetime | None,
    observation: ObservationTime | None = None,
) -> DeviceUsage:
    """Returns the use of one device.

    A device is held as a whole when an assignment or a holder has the whole device. A holder that matches an
    assignment is the same container. One that does not match holds what an earlier assignment promised, or a share
    slot without a promise.

    Args:
        device: As the agent reports it.
        reserved: The assignments that name it.
        sampled_at: When it was sampled, by the clock of `decidedAt`. Later assignments are in flight: the sample
            cannot show their use. None: never.
        observation: How long a holder must be observed before its unused memory is reclaimed. None: none is.
    """
    if not reserved and not device.allocated_to:
        return _UNUSED
    unreserved = [h for h in device.allocated_to if not any(is_holder(h, a) for a in reserved)]
    if any(a.memory_mib is None for a in reserved) or not all(map(_is_sharing, unreserved)):
        return DeviceUsage(held=True)
    in_flight = [a for a in reserved if sampled_at is None or timestamps.parse(a.decided_at) > sampled_at]
    sampled: list[Assignment | DeviceHolder] = [*unreserved, *(a for a in reserved if a not in in_flight)]
    return DeviceUsage(
        sharers=len(reserved) + len(unreserved),
        promised_memory_mib=_total_memory_mib(sampled),
        promised_compute_percent=_total_compute_percent(sampled),
        reclaimed_memory_mib=0 if observation is None else _reclaimed_memory_mib(device, sampled, observation),
        in_flight_memory_mib=_total_memory_mib(in_flight),
        in_flight_compute_percent=_total_compute_percent(in_flight),
    )


def is_holder(holder: DeviceHolder, assignment: Assignment) -> bool:
    """Returns True when the holder is the assignment's pod.

    An agent that does not know the pod's uid reports its name. Pod names have a unique suffix, so the name identifies
    the pod as well.
    """
    if holder.pod_uid is not None:
        return holder.pod_uid == assignment.pod_uid
    return (holder.namespace, holder.pod) == (assignment.namespace, assignment.pod)


def held_by(
    status: TelemetryStatus, assignment: Assignment, container: str | None = None, *, listed: bool = False
) -> frozenset[str]:
    """Returns the UUIDs that the agent reports as held by the assignment's pod.

    Args:
        status: The agent's report.
        assignment: A reservation of the pod.
        container: Only devices of this container; None: of any.
        listed: Only devices that the kubelet lists for it, not those of a process that the agent has found.
    """
    return frozenset(
        d.uuid
        for d in status.devices
        if d.allocated_to
        and any(
            is_holder(h, assignment) and container in (None, h.container) and not (listed and h.terminating)
            for h in d.allocated_to
        )
    )


def holder_of(device: Device, promise: Assignment | DeviceHolder) -> DeviceHolder | None:
    """Returns the holder that a promise was made to; None: it is not reported."""
    if not isinstance(promise, Assignment):
        return promise
    return next((holder for holder in device.allocated_to if is_holder(holder, promise)), None)


def usable_mib(device: Device) -> int:
    """Returns the total memory minus what the driver reserves; 0 when unknown."""
    return max(0, (device.memory_total_mib or 0) - (device.memory_reserved_mib or 0))


def device_memory_mib(reports: Mapping[str, TelemetryStatus | None]) -> dict[tuple[str, str], int]:
    """Returns the memory that each device can promise, by node and UUID, if its agent reports it.

    Memory that the driver reserves cannot be promised.
    """
    return {
        (node, device.uuid): usable_mib(device)
        for node, status in reports.items()
        for device in (status.devices if status else ())
        if device.memory_total_mib is not None
    }


def _reclaimed_memory_mib(
    device: Device, promises: Sequence[Assignment | DeviceHolder], observation: ObservationTime
) -> int:
    """Returns by how much the holders count with less than their promises; negative if they count with more.

    It is 0 as long as each holder's promise is kept for it.
    """
    if not any(isinstance(promise, Assignment) and shares_its_promise(promise) for promise in promises):
        return 0
    counted = sum(counted_memory_mib(promise, holder_of(device, promise), observation) for promise in promises)
    return _total_memory_mib(promises) - counted


def _is_sharing(holder: DeviceHolder) -> bool:
    return bool(holder.shared) or holder.memory_mib is not None


def _total_memory_mib(promises: Iterable[Assignment | DeviceHolder]) -> int:
    return sum(map(placed_mib, promises))


def _total_compute_percent(promises: Iterable[Assignment | DeviceHolder]) -> int:
    return sum(one.compute_percent or 0 for one in promises)
