"""The file as text: JSON with a format, bounded, and refused as a whole when any part of it isn't what it should be."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from gpufleet_agent.devices.base import DeviceInfo, Recovery
from gpufleet_agent.sampling.saved_state import Checkpoint, FaultAcknowledgment, SavedDevice, SavedState
from gpufleet_agent.sampling.snapshot import HealthReason, HealthSnapshot, HealthState

T = TypeVar("T")

FORMAT = "gpufleet-faults/1"

MAX_BYTES = 4 << 20
"""What is longer wasn't written by us. A node of 16 GPUs, each divided into seven, comes to some 40 kB."""
MAX_DEVICES = 256
MAX_FAULTS = 8
MAX_TEXT = 256
MAX_UUID, MAX_CODE, MAX_ADDRESS = 96, 64, 32
"""As long as a status allows: what is longer would make it invalid for as long as the fault stands."""
MAX_INDEX = 1 << 16
_MAX_SECONDS = 253_402_214_400.0
"""A day before the end of the year 9999: a later time can't be written as a date."""

Document = dict[str, Any]


class CheckpointError(ValueError):
    """It is no checkpoint of ours, or not of this format; the message says why."""


@dataclass(frozen=True, slots=True)
class NodeCheckpoint:
    """What a file says, and of which boot of which node."""

    checkpoint: Checkpoint
    node: str
    boot_id: str | None


def encode(kept: NodeCheckpoint) -> Document:
    """As plain data. Texts are cut, and what is beyond the limits, or couldn't be read again, is left out."""
    past = kept.checkpoint.past
    # Those with a fault first, should there be too many.
    ordered = sorted(past.devices.values(), key=lambda device: (not device.health.reasons, device.info.uuid))
    devices = [device for device in (_device(one) for one in ordered) if _can_be_read(device)]
    return {
        "format": FORMAT,
        "node": kept.node,
        "bootId": kept.boot_id,
        "driverVersion": past.driver_version,
        "written": past.reported_at,
        "reports": sorted(kept.checkpoint.reports),
        "acknowledged": [
            {"until": one.until, "uuid": one.uuid, "counted": counted}
            for one, counted in kept.checkpoint.acknowledged.items()
            if len(one.uuid or "") <= MAX_UUID  # else somebody's slip, and about no device
        ],
        "devices": devices[:MAX_DEVICES],
    }


def to_bytes(document: Document) -> bytes:
    """As it stands in the file: readable for people, too."""
    return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()


def decode(content: bytes) -> NodeCheckpoint:
    """Read a file.

    Raises:
        CheckpointError: It isn't one, or is of another format.
    """
    if len(content) > MAX_BYTES:
        raise CheckpointError(f"longer than {MAX_BYTES} bytes")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:  # also what is not UTF-8
        raise CheckpointError(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise CheckpointError("not a JSON object")
    if document.get("format") != FORMAT:
        raise CheckpointError(f"its format is {str(document.get('format'))[:MAX_TEXT]}, not {FORMAT}")
    try:
        return _kept(document)
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise CheckpointError(f"{type(error).__name__}: {error}") from error


def significant_part(document: Document) -> Document:
    """What makes it worth writing: all but when it was written, and beside which reports."""
    return {name: value for name, value in document.items() if name not in {"written", "reports"}}


def urgent_part(document: Document) -> Document:
    """What makes it worth writing at once: not that a fault was seen once more, or in other words."""
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


def _device(device: SavedDevice) -> Document:
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
                # What reads show comes no more often than once; it must not look like news each time.
                "last": device.last.get(reason.code, reason.since),
                "recovery": reason.recovery.value,
            }
            for reason in device.health.reasons[:MAX_FAULTS]
        ],
    }


def _can_be_read(device: Document) -> bool:
    try:
        _read_device(device)
    except (OverflowError, ValueError):
        return False
    return True


def _kept(document: Mapping[str, Any]) -> NodeCheckpoint:
    devices = [_read_device(_of(dict, entry)) for entry in _list(document["devices"], MAX_DEVICES)]
    marks = [_of(dict, entry) for entry in _of(list, document["acknowledged"])]
    past = SavedState(
        reported_at=_seconds(document["written"]),
        driver_version=_optional_text(document["driverVersion"]),
        devices={device.info.uuid: device for device in devices},
    )
    acknowledged = {
        FaultAcknowledgment(_seconds(mark["until"]), _optional_text(mark["uuid"], MAX_UUID)): _seconds(mark["counted"])
        for mark in marks
    }
    reports = frozenset(_seconds(entry) for entry in _of(list, document["reports"]))
    return NodeCheckpoint(
        Checkpoint(past, acknowledged, reports), _text(document["node"]), _optional_text(document["bootId"])
    )


def _read_device(entry: Mapping[str, Any]) -> SavedDevice:
    faults = [_of(dict, fault) for fault in _list(entry["faults"], MAX_FAULTS)]
    since = entry["since"]
    health = HealthSnapshot(
        state=HealthState.UNHEALTHY if faults else HealthState.HEALTHY,
        reasons=tuple(_reason(fault) for fault in faults),
        since=None if since is None else _seconds(since),
    )
    info = DeviceInfo(
        uuid=_name(entry["uuid"], MAX_UUID),
        index=_index(entry["index"]),
        model=_text(entry["model"], MAX_TEXT),
        pci_bus_id=_optional_text(entry["pciBusId"], MAX_ADDRESS),
        memory_total_mib=None if entry["memoryTotalMiB"] is None else _of(int, entry["memoryTotalMiB"]),
        parent=_optional_text(entry["parent"], MAX_UUID),
        profile=_optional_text(entry["profile"]),
    )
    return SavedDevice(info, health, {_name(fault["code"], MAX_CODE): _seconds(fault["last"]) for fault in faults})


def _reason(entry: Mapping[str, Any]) -> HealthReason:
    return HealthReason(
        code=_name(entry["code"], MAX_CODE),
        message=_text(entry["message"], MAX_TEXT),
        since=_seconds(entry["since"]),
        recovery=Recovery(entry["recovery"]),
    )


def _of(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise TypeError(f"{str(value)[:MAX_TEXT]!r} is not of type {kind.__name__}")
    return value


def _list(value: Any, most: int) -> list[Any]:
    entries = _of(list, value)
    if len(entries) > most:
        raise ValueError(f"{len(entries)} entries are more than {most}")
    return entries


def _text(value: Any, most: int = MAX_BYTES) -> str:
    text = _of(str, value)
    text.encode()  # JSON can escape halves of characters, which nobody can be told in UTF-8
    if len(text) > most:
        raise ValueError(f"{text[:most]!r} is only the first {most} characters")
    return text


def _optional_text(value: Any, most: int = MAX_BYTES) -> str | None:
    return None if value is None else _text(value, most)


def _name(value: Any, most: int) -> str:
    if not _of(str, value):
        raise ValueError("a name is empty")
    return _text(value, most)


def _index(value: Any) -> int:
    index = _of(int, value)
    if not 0 <= index < MAX_INDEX:
        raise ValueError(f"{index} is no device's index")
    return index


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{str(value)[:MAX_TEXT]!r} is not a number of seconds")
    if not math.isfinite(value) or not 0 <= value < _MAX_SECONDS:
        raise ValueError(f"{value!r} is not a time that a node's clock has shown")
    return float(value)
