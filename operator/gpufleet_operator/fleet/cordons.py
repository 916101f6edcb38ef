"""Devices that are out of service: `spec.cordoned` of a GPUTelemetry. `until` ends an entry by itself."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from gpufleet_api.telemetry.spec import Assignment, CordonedDevice
from gpufleet_common import timestamps
from gpufleet_operator.model.snapshot import Snapshot


def active(entries: Iterable[CordonedDevice], now: datetime) -> dict[str, CordonedDevice]:
    """Returns the entries that are in force, by UUID."""
    return {entry.uuid: entry for entry in entries if entry.until is None or now < timestamps.parse(entry.until)}


def of_node(snapshot: Snapshot, node: str) -> dict[str, CordonedDevice]:
    """Returns the entries of a node that are in force, by UUID."""
    telemetry = snapshot.telemetry.get(node)
    return active(telemetry.model.spec.cordoned, snapshot.now) if telemetry else {}


def drained(snapshot: Snapshot, node: str) -> dict[str, CordonedDevice]:
    """Returns the entries of a node that are in force and drain their device, by UUID."""
    return {uuid: entry for uuid, entry in of_node(snapshot, node).items() if entry.drain}


def has_cordoned_device(snapshot: Snapshot, node: str, assignment: Assignment) -> bool:
    """Returns True when a device of the assignment is out of service."""
    return not of_node(snapshot, node).keys().isdisjoint(assignment.devices)


def message(entry: CordonedDevice | None) -> str | None:
    """Returns an entry as text, such as `is cordoned by ann until 2026-01-02T03:04:05Z: fan`; None for None."""
    if entry is None:
        return None
    by = f" by {entry.by}" if entry.by else ""
    until = f" until {entry.until}" if entry.until else ""
    return f"is cordoned{by}{until}: {entry.reason}"


def ends(snapshot: Snapshot) -> Iterator[tuple[str, datetime]]:
    """Yields the nodes and times at which entries end by themselves."""
    for node, telemetry in snapshot.telemetry.items():
        for entry in telemetry.model.spec.cordoned:
            if entry.until is not None:
                yield node, timestamps.parse(entry.until)
