"""Whether the measurements of a node are current, its devices are healthy, and its drained devices are empty."""

from collections.abc import Iterable
from dataclasses import dataclass

from gpufleet_api.condition import ConditionStatus
from gpufleet_api.names import TelemetryState
from gpufleet_api.telemetry.device import Device, HealthState
from gpufleet_operator.fleet import cordons
from gpufleet_operator.model.objects import Telemetry
from gpufleet_operator.model.snapshot import Snapshot

_MAX_MESSAGE_LENGTH = 2048


@dataclass(frozen=True, slots=True)
class TelemetryFinding:
    """Status, reason and message of a condition."""

    status: ConditionStatus
    reason: str
    message: str


def fresh(snapshot: Snapshot, telemetry: Telemetry) -> TelemetryFinding:
    """Returns whether the measurements may be used for placement."""
    if telemetry.decode_error:
        return TelemetryFinding(ConditionStatus.FALSE, "Invalid", telemetry.decode_error)
    stale = snapshot.stale_reason(telemetry.name)
    if stale is not None or telemetry.status is None:
        return TelemetryFinding(ConditionStatus.FALSE, "Stale", stale or "agent has not published telemetry yet")
    match telemetry.status.summary.state:
        case TelemetryState.NO_DRIVER:
            return TelemetryFinding(ConditionStatus.FALSE, "NoDriver", "driver not available on the node")
        case TelemetryState.STALE:
            return TelemetryFinding(ConditionStatus.FALSE, "Stale", "agent cannot read the devices")
    return TelemetryFinding(ConditionStatus.TRUE, "Fresh", "agent reports current measurements")


def healthy(telemetry: Telemetry, freshness: TelemetryFinding) -> TelemetryFinding:
    """Returns whether all devices of the node are healthy; Unknown if that cannot be known now.

    A reported fault counts while no driver answers: a lost device often takes the driver with it.
    """
    devices = telemetry.status.devices if telemetry.status else ()
    unhealthy = [d for d in devices if d.health.state is HealthState.UNHEALTHY]
    knows = freshness.status is ConditionStatus.TRUE or freshness.reason == "NoDriver"
    if knows and unhealthy:
        codes = {reason.code for d in unhealthy for reason in d.health.reasons}
        reason = codes.pop() if len(codes) == 1 else "DeviceUnhealthy"
        return TelemetryFinding(ConditionStatus.FALSE, reason, _joined(map(_faults, unhealthy)))
    if freshness.status is not ConditionStatus.TRUE:
        return TelemetryFinding(ConditionStatus.UNKNOWN, freshness.reason, freshness.message)
    if not devices:
        return TelemetryFinding(ConditionStatus.UNKNOWN, "NoDevicesFound", "the driver reports no device")
    return TelemetryFinding(
        ConditionStatus.TRUE, "DevicesHealthy", f"{len(devices)} of {len(devices)} devices are healthy"
    )


def drained(snapshot: Snapshot, telemetry: Telemetry) -> TelemetryFinding | None:
    """Returns whether containers still have devices that are cordoned with `drain`; None: no device is drained."""
    uuids = cordons.drained(snapshot, telemetry.name).keys()
    if not uuids:
        return None
    if telemetry.status is None or (stale := snapshot.stale_reason(telemetry.name)) is not None:
        return TelemetryFinding(ConditionStatus.UNKNOWN, "Stale", stale or "agent has not published telemetry yet")
    users: dict[str, set[str]] = {uuid: set() for uuid in sorted(uuids)}
    for device in telemetry.status.devices:
        users.get(device.uuid, set()).update(f"{holder.namespace}/{holder.pod}" for holder in device.allocated_to)
    for assignment in telemetry.assignments:
        for uuid in uuids & set(assignment.devices):
            users[uuid].add(f"{assignment.namespace}/{assignment.pod}")
    in_use = [f"{uuid}: {', '.join(sorted(pods))}" for uuid, pods in users.items() if pods]
    if in_use:
        return TelemetryFinding(ConditionStatus.FALSE, "InUse", _joined(in_use))
    return TelemetryFinding(ConditionStatus.TRUE, "Drained", _joined([f"no container has {', '.join(users)}"]))


def _faults(device: Device) -> str:
    """Returns `GPU-1-0: XidError (XID 79: ...)`."""
    faults = (f"{r.code} ({r.message})" if r.message else r.code for r in device.health.reasons)
    return f"{device.uuid}: {', '.join(faults) or 'unhealthy'}"


def _joined(parts: Iterable[str]) -> str:
    """Joins as many parts as a message may have, and counts the rest."""
    kept: list[str] = []
    rest = list(parts)
    while rest and sum(map(len, kept)) + len(rest[0]) < _MAX_MESSAGE_LENGTH:
        kept.append(rest.pop(0))
    return "; ".join(kept) + (f"; and {len(rest)} more" if rest else "")
