"""Counts the consecutive samples in which a shared device runs out of memory."""

from collections.abc import Mapping
from datetime import datetime

from gpufleet_api.telemetry.device import Device
from gpufleet_common import timestamps
from gpufleet_operator.fleet.engine_input import sampled_at
from gpufleet_operator.ledger.device_usage import usable_mib
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import DevicePressure

PRESSURE_PERCENT = 98
"""Threshold of the use of usable memory. A full device shows at most 100 %."""
PRESSURE_SAMPLES = 4
"""Number of consecutive samples after which a pod is moved."""


def observe_pressure(snapshot: Snapshot) -> dict[str, Mapping[str, DevicePressure]]:
    """Returns the devices that run out of memory, by node and UUID, as of the latest samples.

    A sample counts if it is later than the last counted one by `Limits.pressure_sample_interval`. A sample below the
    limit resets the count, whenever it was taken. Stale telemetry changes nothing.
    """
    found: dict[str, Mapping[str, DevicePressure]] = {}
    for node, telemetry in snapshot.telemetry.items():
        before = snapshot.previous_state.pressure.get(node, {})
        status = telemetry.status
        if status is None or snapshot.stale_reason(node) is not None:
            after = dict(before)
        else:
            observed = ((d.uuid, _observe(snapshot, before.get(d.uuid), d, status.sample_time)) for d in status.devices)
            after = {uuid: one for uuid, one in observed if one is not None}
        if after:
            found[node] = after
    return found


def is_due(snapshot: Snapshot, node: str, uuid: str, pressure: DevicePressure) -> bool:
    """Returns True when this pass counted a sample that makes a move due, and the last move is long enough ago."""
    before = snapshot.previous_state.pressure.get(node, {}).get(uuid)
    counted = pressure.samples > (before.samples if before is not None else 0)
    return counted and pressure.samples >= PRESSURE_SAMPLES and not _moved_recently(snapshot, pressure.tried)


def _observe(
    snapshot: Snapshot, before: DevicePressure | None, device: Device, newest: str | None
) -> DevicePressure | None:
    usable = usable_mib(device)
    shared = any(holder.memory_mib is not None for holder in device.allocated_to)
    tried = before.tried if before is not None and _moved_recently(snapshot, before.tried) else None
    sampled = sampled_at(device, newest)
    if sampled is None or device.memory_used_mib is None:
        return before
    if not shared or not usable or 100 * device.memory_used_mib <= PRESSURE_PERCENT * usable:
        return None if tried is None else DevicePressure(0, sampled, tried)
    if before is None or before.samples == 0:
        return DevicePressure(1, sampled, tried)
    interval = timestamps.parse(sampled) - timestamps.parse(before.sampled)
    if interval < snapshot.limits.pressure_sample_interval:
        return DevicePressure(before.samples, before.sampled, tried)
    return DevicePressure(before.samples + 1, sampled, tried)


def _moved_recently(snapshot: Snapshot, tried: datetime | None) -> bool:
    return tried is not None and snapshot.now - tried < snapshot.limits.device_rest
