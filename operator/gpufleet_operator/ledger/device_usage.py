"""How each device is used, and how much of it is promised: the ledger and the kubelet's word joined, for the engine."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from gpufleet_api.telemetry import Assignment, Device, DeviceHolder, TelemetryStatus
from gpufleet_common import timestamps


@dataclass(frozen=True, slots=True)
class DeviceUsage:
    """The fields of the engine's DeviceState that tell of holders."""

    held: bool = False
    sharers: int = 0
    promised_memory_mib: int = 0
    promised_compute_percent: int = 0
    in_flight_memory_mib: int = 0
    in_flight_compute_percent: int = 0


def by_device(assignments: Iterable[Assignment]) -> dict[str, list[Assignment]]:
    """A node's reservations by the devices that they name."""
    found: dict[str, list[Assignment]] = {}
    for assignment in assignments:
        for uuid in assignment.devices:
            found.setdefault(uuid, []).append(assignment)
    return found


def usage_of(device: Device, reserved: Sequence[Assignment], sampled_at: datetime | None) -> DeviceUsage:
    """One device's use.

    A device is held as a whole when a reservation or a holder says so. A holder that goes with a reservation is the
    same container; one without holds a slot that nothing is promised of, or what an earlier reservation promised.

    Args:
        device: as the agent reports it.
        reserved: the reservations that name it.
        sampled_at: when it was measured, by the clock that reservations are dated by; what was decided later is in
            flight, because the sample can't show it. None: never.
    """
    strangers = [h for h in device.allocated_to if not any(is_holder(h, a) for a in reserved)]
    sharers = [h for h in strangers if h.shared or h.memory_mib is not None]
    whole = any(a.memory_mib is None for a in reserved) or len(sharers) < len(strangers)
    if whole:
        return DeviceUsage(held=True)
    in_flight = [a for a in reserved if sampled_at is None or timestamps.parse(a.decided_at) > sampled_at]
    settled: list[Assignment | DeviceHolder] = [*sharers, *(a for a in reserved if a not in in_flight)]
    return DeviceUsage(
        sharers=len(reserved) + len(sharers),
        promised_memory_mib=sum(one.memory_mib or 0 for one in settled),
        promised_compute_percent=sum(one.compute_percent or 0 for one in settled),
        in_flight_memory_mib=sum(a.memory_mib or 0 for a in in_flight),
        in_flight_compute_percent=sum(a.compute_percent or 0 for a in in_flight),
    )


def is_holder(holder: DeviceHolder, assignment: Assignment) -> bool:
    """Pod names carry a unique suffix, so namespace and name identify a pod where the agent doesn't know the uid."""
    if holder.pod_uid is not None:
        return holder.pod_uid == assignment.pod_uid
    return (holder.namespace, holder.pod) == (assignment.namespace, assignment.pod)


def held_by(status: TelemetryStatus, assignment: Assignment, container: str | None = None) -> frozenset[str]:
    """Devices reported with the reservation's pod, in whichever container or in the one named."""
    return frozenset(
        d.uuid
        for d in status.devices
        if any(is_holder(h, assignment) and container in (None, h.container) for h in d.allocated_to)
    )
