"""Distinguishes reports that have only new measurements from those that a decision may wait for."""

from gpufleet_api.telemetry.device import Device, DeviceHolder
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
    before, after = old.status, new.status
    return (
        old.conditions == new.conditions
        and len(before.devices) == len(after.devices)
        and before.driver_version == after.driver_version
        and before.boot_id == after.boot_id
        and before.transport == after.transport
        and before.processes_observed == after.processes_observed
        and all(map(_alike, before.devices, after.devices))
    )


def measured_again(old: Telemetry | None, new: Telemetry | None) -> bool:
    """Returns True if two versions of a GPUTelemetry differ only in measurements and their times.

    Args:
        old: The version before; None: absent.
        new: The version after; None: absent.
    """
    if old is None or new is None or old.status is None or new.status is None:
        return False
    return old.status.assignments_generation == new.status.assignments_generation and measurements_only(old, new)


def _alike(before: Device, after: Device) -> bool:
    """Returns whether a decision that does not read measurements is the same for both."""
    return (
        before.uuid == after.uuid
        and before.withheld == after.withheld
        and before.memory_total_mib == after.memory_total_mib
        # The cache shares equal parts, so most are the same object.
        and (before.health is after.health or _faults(before) == _faults(after))
        and len(before.allocated_to) == len(after.allocated_to)
        and all(_holder(a) == _holder(b) for a, b in zip(before.allocated_to, after.allocated_to, strict=True))
    )


def _faults(device: Device) -> tuple[object, ...]:
    health = device.health
    return health.state, [reason.code for reason in (*health.reasons, *health.warnings)]


def _holder(holder: DeviceHolder) -> tuple[object, ...]:
    return holder.namespace, holder.pod, holder.container, holder.pod_uid, holder.shared, holder.terminating
