"""Health of the devices of a reservation, as the agent reports it."""

from gpufleet_api.telemetry.device import HealthState
from gpufleet_api.telemetry.spec import Assignment
from gpufleet_operator.fleet.cordons import has_cordoned_device
from gpufleet_operator.fleet.node_health import not_placeable_reason
from gpufleet_operator.model.objects import Pod, Reservation, Telemetry
from gpufleet_operator.model.snapshot import Snapshot


def may_release(snapshot: Snapshot, reservation: Reservation, pod: Pod) -> bool:
    """Returns True when the pod of a stored reservation may be released to its node.

    The node must be schedulable and respond, its telemetry fresh and its transport that of the pod, and every device in
    service and reported as healthy. It must have the labels of the pod's node selector: Kueue adds those of a
    ResourceFlavor when it admits the pod.
    """
    node = snapshot.nodes.get(reservation.node)
    if node is None or node.unschedulable or snapshot.stale_reason(reservation.node) is not None:
        return False
    if any(node.labels.get(key) != value for key, value in pod.needs.node_selector.items()):
        return False
    if not_placeable_reason(snapshot, reservation.node) is not None:
        return False
    if has_cordoned_device(snapshot, reservation.node, reservation.assignment):
        return False
    if snapshot.telemetry[reservation.node].transport is not pod.transport:
        return False
    return not unhealthy_or_missing_devices(snapshot.telemetry[reservation.node], reservation.assignment)


def unhealthy_or_missing_devices(telemetry: Telemetry, assignment: Assignment) -> tuple[str, ...]:
    """Returns the assigned devices that the agent reports as unhealthy, or does not report."""
    healthy = _devices_in(telemetry, HealthState.HEALTHY)
    return tuple(uuid for uuid in assignment.devices if uuid not in healthy)


def reported_unhealthy_devices(telemetry: Telemetry, assignment: Assignment) -> tuple[str, ...]:
    """Returns the assigned devices that the agent reports as unhealthy.

    Unreported devices are not included: an agent that starts before the driver does not report any device.
    """
    unhealthy = _devices_in(telemetry, HealthState.UNHEALTHY)
    return tuple(uuid for uuid in assignment.devices if uuid in unhealthy)


def _devices_in(telemetry: Telemetry, state: HealthState) -> frozenset[str]:
    devices = telemetry.status.devices if telemetry.status else ()
    return frozenset(d.uuid for d in devices if d.health.state == state)
