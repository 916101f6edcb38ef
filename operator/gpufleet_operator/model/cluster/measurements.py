"""Distinguishes reports that have only new measurements from those that a decision may wait for."""

from collections.abc import Iterator

from gpufleet_api.telemetry.device import Device, DeviceHolder
from gpufleet_api.telemetry.gpu_telemetry import TelemetryStatus
from gpufleet_operator.model.objects import Telemetry


def measurements_only(old: Telemetry | None, new: Telemetry | None) -> bool:
    """Returns True if two versions of a GPUTelemetry differ only in measurements, their times and the generation read.

    False if a reservation, a holder, the health of a device or the devices themselves differ.

    Args:
        old: The version before; None: absent.
        new: The version after; None: absent.
    """
    if old is None or new is None or old.status is None or new.status is None:
        return False
    if old.uid != new.uid or old.deleting != new.deleting or old.model.spec != new.model.spec:
        return False
    return old.conditions == new.conditions and all(
        before == after for before, after in zip(_facts(old.status), _facts(new.status), strict=False)
    )


def _facts(status: TelemetryStatus) -> Iterator[object]:
    """Yields what decisions wait for, the cheapest first."""
    yield len(status.devices)
    yield status.driver_version, status.boot_id, status.transport, status.processes_observed
    for device in status.devices:
        yield _description(device)
        yield list(map(_holder, device.allocated_to))


def _description(device: Device) -> tuple[object, ...]:
    health = device.health
    faults = [reason.code for reason in (*health.reasons, *health.warnings)]
    return device.uuid, health.state, faults, device.withheld, device.memory_total_mib


def _holder(holder: DeviceHolder) -> tuple[object, ...]:
    return holder.namespace, holder.pod, holder.container, holder.pod_uid, holder.shared, holder.terminating
