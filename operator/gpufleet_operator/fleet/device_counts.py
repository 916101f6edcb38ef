"""Counts the devices of a node by availability and by occupation."""

from collections import Counter
from enum import StrEnum

from gpufleet_api.telemetry.device import Device, HealthState
from gpufleet_api.telemetry.spec import Assignment
from gpufleet_common.device_use import in_use
from gpufleet_operator.fleet import cordons
from gpufleet_operator.fleet.node_health import not_placeable_reason
from gpufleet_operator.ledger.device_usage import by_device, usage_of
from gpufleet_operator.model.objects import Telemetry
from gpufleet_operator.model.snapshot import Snapshot


class Availability(StrEnum):
    """Whether a device can be given to a new pod if nothing uses it. The first that applies counts."""

    STALE = "Stale"
    """The telemetry of its node cannot be used."""
    UNHEALTHY = "Unhealthy"
    CORDONED = "Cordoned"
    WITHHELD = "Withheld"
    NODE_NOT_READY = "NodeNotReady"
    """No pod is placed on its node: it is cordoned, not Ready, or its kubelet does not respond."""
    AVAILABLE = "Available"


class Occupation(StrEnum):
    """Kind of use of a device."""

    EXCLUSIVE = "Exclusive"
    """One container has it as a whole, or a reservation for it."""
    SHARED = "Shared"
    FOREIGN = "Foreign"
    """A process that belongs to no known pod."""
    FREE = "Free"


DeviceClass = tuple[str, Availability, Occupation]
"""Model, availability and occupation."""


def device_counts(snapshot: Snapshot, telemetry: Telemetry) -> Counter[DeviceClass]:
    """Returns the number of devices of a node in each class."""
    if telemetry.status is None or telemetry.deleting:
        return Counter()
    of_node = _of_node(snapshot, telemetry.name)
    cordoned = cordons.of_node(snapshot, telemetry.name)
    reserved = by_device(telemetry.assignments)
    return Counter(
        (
            device.model,
            of_node or _availability(device, cordoned=device.uuid in cordoned),
            _occupation(device, reserved.get(device.uuid, [])),
        )
        for device in telemetry.status.devices
    )


def _of_node(snapshot: Snapshot, name: str) -> Availability | None:
    """Returns the availability that applies to all devices of a node; None: it differs by device."""
    if snapshot.stale_reason(name) is not None:
        return Availability.STALE
    node = snapshot.nodes.get(name)
    if node is None or node.unschedulable or not_placeable_reason(snapshot, name) is not None:
        return Availability.NODE_NOT_READY
    return None


def _availability(device: Device, *, cordoned: bool) -> Availability:
    if device.health.state is HealthState.UNHEALTHY:
        return Availability.UNHEALTHY
    if cordoned:
        return Availability.CORDONED
    return Availability.AVAILABLE if device.withheld is None else Availability.WITHHELD


def _occupation(device: Device, reserved: list[Assignment]) -> Occupation:
    usage = usage_of(device, reserved, None)
    if usage.held:
        return Occupation.EXCLUSIVE
    if usage.sharers:
        return Occupation.SHARED
    own_memory = device.memory_model is None
    used = in_use(device.process_count, device.memory_used_mib, device.utilization_percent, own_memory=own_memory)
    return Occupation.FOREIGN if used else Occupation.FREE
