"""Details of a device's rejection that the fleet file has and the engine does not: fault, holder, last sample."""

from collections.abc import Mapping

from gpufleet_api.telemetry.device import Device
from gpufleet_api.telemetry.gpu_telemetry import GPUTelemetry
from gpufleet_common import timestamps
from gpufleet_operator.fleet.engine_input import sampled_at
from gpufleet_operator.placement import Fleet
from gpufleet_operator.placement.model import FilterReason

Details = Mapping[tuple[str, FilterReason], str]
"""By device UUID and reason: the message to use in place of the engine's."""


def details(fleet: Fleet, telemetry: Mapping[str, GPUTelemetry]) -> Details:
    """Returns the details of every device.

    Args:
        fleet: The fleet built from `telemetry`.
        telemetry: By node name.
    """
    found: dict[tuple[str, FilterReason], str] = {}
    for name, node in telemetry.items():
        for assignment in node.spec.assignments:
            for uuid in assignment.devices:
                found[uuid, FilterReason.IN_USE] = f"reserved for {assignment.namespace}/{assignment.pod}"
        if node.status is None:
            continue
        for device in node.status.devices:
            found |= _of_device(device)
            sampled = sampled_at(device, node.status.sample_time)
            if sampled is not None and fleet.nodes[name].stale_reason is None:
                found[device.uuid, FilterReason.TELEMETRY_STALE] = _age(sampled, node.status.observed_at)
    return found


def _of_device(device: Device) -> Details:
    found: dict[tuple[str, FilterReason], str] = {}
    if device.allocated_to:
        holders = ", ".join(f"{holder.namespace}/{holder.pod}" for holder in device.allocated_to)
        found[device.uuid, FilterReason.IN_USE] = f"held by {holders}"
    if device.health.reasons:
        faults = (f"{r.code} ({r.message})" if r.message else r.code for r in device.health.reasons)
        found[device.uuid, FilterReason.UNHEALTHY] = f"fault: {', '.join(faults)}"
    elif device.withheld is not None:
        found[device.uuid, FilterReason.UNHEALTHY] = f"withheld: {device.withheld}"
    return found


def _age(sampled: str, observed: str) -> str:
    seconds = (timestamps.parse(observed) - timestamps.parse(sampled)).total_seconds()
    return f"last sampled at {sampled}, {seconds:.0f} s before its node's report"
