"""Encodes and decodes the fault file: versioned JSON, bounded, and rejected as a whole if any part is invalid."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from gpufleet_agent.faults.json_fields import (
    MAX_CODE,
    MAX_TEXT,
    MAX_UUID,
    JsonFields,
    read_device_info,
    read_reason,
)
from gpufleet_agent.sampling.saved_state import Checkpoint, FaultAcknowledgment, SavedDevice, SavedState
from gpufleet_agent.sampling.snapshot import HealthSnapshot, HealthState

FORMAT = "gpufleet-faults/1"

MAX_BYTES = 4 << 20
"""A longer file is not a checkpoint. A node with 16 GPUs, each divided into seven, needs about 40 kB."""
MAX_DEVICES = 256
MAX_FAULTS = 8
_MAX_SECONDS = 253_402_214_400.0
"""A day before the end of the year 9999: later times cannot be formatted as a date."""

Document = dict[str, Any]


class CheckpointError(ValueError):
    """The file is not a checkpoint, or not of this format; the message has the reason."""


@dataclass(frozen=True, slots=True)
class NodeCheckpoint:
    """Content of a fault file, with the node and the boot that it is of."""

    checkpoint: Checkpoint
    node: str
    boot_id: str | None


def encode(content: NodeCheckpoint) -> Document:
    """Returns the content as JSON data. Texts are truncated; what exceeds a limit or is not decodable is left out."""
    checkpoint, state = content.checkpoint, content.checkpoint.state
    # Devices with a fault first, in case there are too many.
    ordered = sorted(state.devices.values(), key=lambda device: (not device.health.reasons, device.info.uuid))
    devices = [device for device in map(_encode_device, ordered) if _is_decodable(device)]
    return {
        "format": FORMAT,
        "node": content.node,
        "bootId": content.boot_id,
        "driverVersion": state.driver_version,
        "written": state.reported_at,
        "reports": sorted(checkpoint.reports),
        "acknowledged": [
            {"until": one.until, "uuid": one.uuid, "counted": applied}
            for one, applied in checkpoint.acknowledgments.items()
            if len(one.uuid or "") <= MAX_UUID  # a longer one is a mistake, and matches no device
        ],
        "devices": devices[:MAX_DEVICES],
    }


def to_bytes(document: Document) -> bytes:
    """Returns the document as it is stored, indented so that it is easy to read."""
    return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()


def decode(content: bytes) -> NodeCheckpoint:
    """Decodes a file.

    Raises:
        CheckpointError: It is not a checkpoint, or of another format.
    """
    if len(content) > MAX_BYTES:
        raise CheckpointError(f"longer than {MAX_BYTES} bytes")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:  # ValueError also if it is not UTF-8
        raise CheckpointError(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise CheckpointError("not a JSON object")
    if document.get("format") != FORMAT:
        raise CheckpointError(f"format is {str(document.get('format'))[:MAX_TEXT]}, not {FORMAT}")
    try:
        return _decode(document)
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise CheckpointError(f"{type(error).__name__}: {error}") from error


def significant_part(document: Document) -> Document:
    """Returns the part whose change requires a write: all except the time of writing and the times of statuses."""
    return {name: value for name, value in document.items() if name not in {"written", "reports"}}


def urgent_part(document: Document) -> Document:
    """Returns the part whose change requires an urgent write: not the messages, nor how recently a fault occurred."""
    devices = [
        {
            **device,
            "faults": [
                {name: value for name, value in fault.items() if name not in {"message", "last"}}
                for fault in device["faults"]
            ],
        }
        for device in document["devices"]
    ]
    return {**significant_part(document), "devices": devices}


def _encode_device(device: SavedDevice) -> Document:
    info = device.info
    return {
        "uuid": info.uuid,
        "index": info.index,
        "model": info.model[:MAX_TEXT],
        "pciBusId": info.pci_bus_id,
        "memoryTotalMiB": info.memory_total_mib,
        "parent": info.parent,
        "profile": info.profile,
        "since": device.health.since,
        "faults": [
            {
                "code": reason.code,
                "message": reason.message[:MAX_TEXT],
                "since": reason.since,
                # A fault that reads show occurs once. Without a fixed time, each write would look like a change.
                "last": device.last_seen.get(reason.code, reason.since),
                "recovery": reason.recovery.value,
            }
            for reason in device.health.reasons[:MAX_FAULTS]
        ],
    }


def _is_decodable(device: Document) -> bool:
    try:
        _decode_device(_fields(device))
    except (OverflowError, ValueError):
        return False
    return True


def _fields(entry: Mapping[str, Any]) -> JsonFields:
    return JsonFields(entry, _seconds, strict=True)


def _decode(document: Mapping[str, Any]) -> NodeCheckpoint:
    fields = _fields(document)
    devices = [_decode_device(fields.inside(entry)) for entry in _bounded(fields.items("devices"), MAX_DEVICES)]
    marks = [fields.inside(entry) for entry in fields.items("acknowledged")]
    state = SavedState(
        reported_at=_seconds(document["written"]),
        driver_version=fields.optional_text("driverVersion", MAX_BYTES),
        devices={device.info.uuid: device for device in devices},
    )
    acknowledgments = {
        FaultAcknowledgment(_seconds(mark.entry["until"]), mark.optional_text("uuid", MAX_UUID)): _seconds(
            mark.entry["counted"]
        )
        for mark in marks
    }
    reports = frozenset(map(_seconds, fields.items("reports")))
    node, boot_id = fields.text("node", MAX_BYTES), fields.optional_text("bootId", MAX_BYTES)
    return NodeCheckpoint(Checkpoint(state, acknowledgments, reports), node, boot_id)


def _decode_device(fields: JsonFields) -> SavedDevice:
    faults = [fields.inside(fault) for fault in _bounded(fields.items("faults"), MAX_FAULTS)]
    health = HealthSnapshot(
        state=HealthState.UNHEALTHY if faults else HealthState.HEALTHY,
        reasons=tuple(map(read_reason, faults)),
        since=fields.optional_time("since"),
    )
    info = replace(
        read_device_info(fields),
        parent=fields.optional_text("parent", MAX_UUID),
        profile=fields.optional_text("profile", MAX_BYTES),
    )
    return SavedDevice(info, health, {fault.name("code", MAX_CODE): _seconds(fault.entry["last"]) for fault in faults})


def _bounded(entries: list[Any], limit: int) -> list[Any]:
    if len(entries) > limit:
        raise ValueError(f"{len(entries)} entries: must have at most {limit}")
    return entries


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{str(value)[:MAX_TEXT]!r} is not a number of seconds")
    if not math.isfinite(value) or not 0 <= value < _MAX_SECONDS:
        raise ValueError(f"{value!r} is not a valid time")
    return float(value)
