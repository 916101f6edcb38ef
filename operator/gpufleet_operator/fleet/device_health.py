"""Health of the devices of a reservation, as the agent reports it."""

from gpufleet_api.telemetry import Assignment
from gpufleet_operator.model.objects import Reservation, Telemetry
from gpufleet_operator.model.snapshot import Snapshot


def may_release(snapshot: Snapshot, entry: Reservation) -> bool:
    """True when a reservation made earlier may still be acted on: node usable, telemetry fresh, devices healthy."""
    node = snapshot.nodes.get(entry.node)
    if node is None or node.unschedulable or snapshot.stale_reason(entry.node) is not None:
        return False
    return not unhealthy_or_missing_devices(snapshot.telemetry[entry.node], entry.assignment)


def unhealthy_or_missing_devices(telemetry: Telemetry, assignment: Assignment) -> tuple[str, ...]:
    """Devices of a reservation that are unhealthy, or no longer reported at all."""
    devices = telemetry.status.devices if telemetry.status else ()
    healthy = {d.uuid for d in devices if d.health.state == "Healthy"}
    return tuple(uuid for uuid in assignment.devices if uuid not in healthy)


def reported_unhealthy_devices(telemetry: Telemetry, assignment: Assignment) -> tuple[str, ...]:
    """Devices of a reservation that the agent reports with a fault.

    Not those that it doesn't report: an agent that starts before the driver knows of no device at all.
    """
    devices = telemetry.status.devices if telemetry.status else ()
    faulty = {d.uuid for d in devices if d.health.state == "Unhealthy"}
    return tuple(uuid for uuid in assignment.devices if uuid in faulty)
