"""What a fleet file knows of a device beyond what the engine needs: its fault, its holder, its last sample."""

from collections.abc import Mapping

from gpufleet_api.telemetry import Device, GPUTelemetry
from gpufleet_common import timestamps
from gpufleet_operator.fleet.engine_input import sampled_at
from gpufleet_operator.placement import Fleet
from gpufleet_operator.placement.model import Reason

Facts = Mapping[tuple[str, Reason], str]
"""By device UUID and the reason that they explain: words that stand in place of the engine's."""


def facts(fleet: Fleet, telemetry: Mapping[str, GPUTelemetry]) -> Facts:
    """Of every device.

    Args:
        fleet: as it was made of `telemetry`.
        telemetry: by node name.
    """
    found: dict[tuple[str, Reason], str] = {}
    for name, node in telemetry.items():
        for assignment in node.spec.assignments:
            for uuid in assignment.devices:
                found[uuid, Reason.IN_USE] = f"is reserved for {assignment.namespace}/{assignment.pod}"
        if node.status is None:
            continue
        for device in node.status.devices:
            found |= _of_device(device)
            sampled = sampled_at(device, node.status.sample_time)
            if sampled is not None and fleet.nodes[name].stale_reason is None:
                found[device.uuid, Reason.TELEMETRY_STALE] = _age(sampled, node.status.observed_at)
    return found


def _of_device(device: Device) -> Facts:
    found: dict[tuple[str, Reason], str] = {}
    if device.allocated_to:
        holders = ", ".join(f"{holder.namespace}/{holder.pod}" for holder in device.allocated_to)
        found[device.uuid, Reason.IN_USE] = f"is held by {holders}"
    if device.health.reasons:
        faults = (f"{r.code} ({r.message})" if r.message else r.code for r in device.health.reasons)
        found[device.uuid, Reason.UNHEALTHY] = f"has a fault: {', '.join(faults)}"
    elif device.withheld is not None:
        found[device.uuid, Reason.UNHEALTHY] = f"can't be given to a container: {device.withheld}"
    return found


def _age(sampled: str, observed: str) -> str:
    seconds = (timestamps.parse(observed) - timestamps.parse(sampled)).total_seconds()
    return f"was last sampled at {sampled}, {seconds:.0f} s before its node's report"
