"""What a fleet file knows of a device beyond what the engine needs: which fault it has, and who holds it."""

from collections.abc import Mapping

from gpufleet_api.telemetry import GPUTelemetry
from gpufleet_operator.placement.model import Reason


def faults_and_holders(telemetry: Mapping[str, GPUTelemetry]) -> dict[tuple[str, Reason], str]:
    """By device UUID and the reason that it explains, in words that go behind "GPU ... is held" or "has a fault"."""
    found: dict[tuple[str, Reason], str] = {}
    for node in telemetry.values():
        for assignment in node.spec.assignments:
            for uuid in assignment.devices:
                found[uuid, Reason.IN_USE] = f"reserved for {assignment.namespace}/{assignment.pod}"
        for device in node.status.devices if node.status else ():
            if device.allocated_to:
                holders = ", ".join(f"{holder.namespace}/{holder.pod}" for holder in device.allocated_to)
                found[device.uuid, Reason.IN_USE] = f"held by {holders}"
            if device.health.reasons:
                faults = (f"{r.code} ({r.message})" if r.message else r.code for r in device.health.reasons)
                found[device.uuid, Reason.UNHEALTHY] = ", ".join(faults)
    return found
