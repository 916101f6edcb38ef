"""Reads the state of the devices back from the last status that the agent wrote.

It is read leniently: parts that cannot be decoded are skipped, because a status of another version must not keep the
agent from working.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import structlog

from gpufleet_agent.faults.json_fields import MAX_TEXT, JsonFields, of_type, read_device_info, read_reason
from gpufleet_agent.sampling.saved_state import SavedDevice, SavedState
from gpufleet_agent.sampling.snapshot import HealthSnapshot, HealthState
from gpufleet_common import timestamps

log = structlog.get_logger(__name__)


def read_status(
    status: Mapping[str, Any], boot_id: str | None, unreadable: Callable[[], None] = lambda: None
) -> SavedState | None:
    """Returns the state in a status; None: there is none, or it is of another boot.

    A reboot resets the devices, and they may have been replaced.

    Args:
        status: Status of the GPUTelemetry object.
        boot_id: The node's boot ID; None: unknown, and the status is used.
        unreadable: Called for each part that cannot be decoded, for example of another API version.
    """
    reported_at = timestamps.to_epoch(status.get("observedAt"))
    if reported_at is None or (boot_id is not None and status.get("bootId", boot_id) != boot_id):
        return None
    fields = JsonFields(status, timestamps.to_epoch)
    try:
        driver_version, entries = fields.optional_text("driverVersion", MAX_TEXT), fields.items("devices")
    except TypeError as error:
        log.warning("ignoring unreadable status", error=repr(error))
        unreadable()
        return None
    devices = {}
    for entry in entries:
        try:
            device = _read_device(fields.inside(entry), reported_at)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            log.warning("ignoring unreadable device in status", error=repr(error))
            unreadable()
            continue
        devices[device.info.uuid] = device
    return SavedState(reported_at, driver_version, devices)


def _read_device(fields: JsonFields, reported_at: float) -> SavedDevice:
    info = replace(
        read_device_info(fields),
        architecture=fields.optional_text("architecture", MAX_TEXT),
        compute_capability=fields.optional_text("computeCapability", MAX_TEXT),
        numa_node=fields.optional_integer("numaNode"),
        nvlink_peers=tuple(of_type(str, peer) for peer in fields.items("nvlinkPeers")),
    )
    return SavedDevice(info, _read_health(fields.inside(fields.entry["health"]), reported_at))


def _read_health(fields: JsonFields, reported_at: float) -> HealthSnapshot:
    reasons, warnings = (
        tuple(read_reason(fields.inside(entry), default_since=reported_at, fault=fault) for entry in fields.items(name))
        for name, fault in (("reasons", True), ("warnings", False))
    )
    return HealthSnapshot(HealthState(fields.entry["state"]), reasons, fields.optional_time("since"), warnings)
