"""The file format of recordings of a node's hardware: one JSON object per line.

    {"format": "gpufleet-recording/1", "driver_version": "580.95.05"}
    {"at": 0.0, "device": {"uuid": "GPU-1", "index": 0, "model": "NVIDIA H100 80GB HBM3", ...}}
    {"at": 0.2, "reading": {"uuid": "GPU-1", "memory_total_mib": 81559, "utilization_percent": 37, ...}}
    {"at": 0.2, "slow": {"uuid": "GPU-1", "process_count": 1, ...}}
    {"at": 7.5, "event": {"uuid": "GPU-1", "kind": "XidError", "code": 79, "message": "...", "fault": true}}
    {"at": 8.0, "error": {"uuid": "GPU-1", "kind": "DeviceLost", "message": "..."}}
    {"at": 9.0, "error": {"uuid": null, "kind": "Unavailable", "message": "..."}}

`at` is in seconds and never decreases. The other fields are those of the dataclasses in `devices.base`; an absent field
was not reported. A reading or error is valid until the next line of its device; an error without a device is valid
until the next line of any device. So only changes need lines.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

import msgspec

from gpufleet_agent.devices.base import (
    DeviceAccessError,
    DeviceError,
    DeviceEvent,
    DeviceInfo,
    DeviceLostError,
    DeviceReadError,
    DeviceResetRequiredError,
    HardwareError,
    HardwareUnavailableError,
    Reading,
    SlowReading,
)

FORMAT = "gpufleet-recording/1"
UNAVAILABLE = "Unavailable"

DEVICE_ERRORS = MappingProxyType(
    {
        "DeviceLost": DeviceLostError,
        "ResetRequired": DeviceResetRequiredError,
        "NoAccess": DeviceAccessError,
        "ReadFailed": DeviceReadError,
    }
)
"""By name in a recording."""


class RecordingError(ValueError):
    """The file is not a recording. The message has the line and the reason."""


@dataclass(frozen=True, slots=True)
class Failure:
    uuid: str | None
    """None: the hardware as a whole."""
    kind: str
    message: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ({UNAVAILABLE} if self.uuid is None else DEVICE_ERRORS):
            raise ValueError(f"no failure {self.kind!r} of {self.uuid or 'the hardware'}")

    def error(self) -> HardwareError:
        if self.uuid is None:
            return HardwareUnavailableError(self.message or "recorded as unavailable")
        return DEVICE_ERRORS[self.kind](self.uuid, self.message)


def failure_of(error: HardwareError) -> Failure | None:
    """Returns an error in recorded form; None for an error that ends the process, which cannot be replayed."""
    if isinstance(error, HardwareUnavailableError):
        return Failure(None, UNAVAILABLE, str(error))
    if isinstance(error, DeviceError):
        for name, kind in DEVICE_ERRORS.items():  # DeviceAccessError, the subclass, comes first
            if isinstance(error, kind):
                return Failure(error.uuid, name, error.message)
    return None


Content = DeviceInfo | Reading | SlowReading | DeviceEvent | Failure

_KINDS: MappingProxyType[str, type[Content]] = MappingProxyType(
    {"device": DeviceInfo, "reading": Reading, "slow": SlowReading, "event": DeviceEvent, "error": Failure}
)
_NAMES = MappingProxyType({kind: name for name, kind in _KINDS.items()})


@dataclass(frozen=True, slots=True)
class Entry:
    """One line after the first."""

    at: float
    content: Content


@dataclass(frozen=True, slots=True)
class Recording:
    driver_version: str | None
    entries: tuple[Entry, ...]

    @property
    def seconds(self) -> float:
        """Its duration. The last line lasts as long as the one before it, and at least one second."""
        times = sorted({entry.at for entry in self.entries}) or [0.0]
        return times[-1] + max(1.0, times[-1] - times[-2] if len(times) > 1 else 1.0)

    def devices(self) -> tuple[DeviceInfo, ...]:
        """Returns all devices, as last described, sorted by index."""
        infos = {entry.content.uuid: entry.content for entry in self.entries if isinstance(entry.content, DeviceInfo)}
        return tuple(sorted(infos.values(), key=lambda info: info.index))


def render_header(driver_version: str | None) -> bytes:
    header = {"format": FORMAT} | ({} if driver_version is None else {"driver_version": driver_version})
    return msgspec.json.encode(header) + b"\n"


def render(entry: Entry) -> bytes:
    """Returns a later line."""
    content = msgspec.to_builtins(entry.content, order="deterministic")
    if not isinstance(entry.content, Failure | DeviceEvent):
        content = {
            name: value for name, value in content.items() if value is not None and (name != "unreadable" or value)
        }
    return msgspec.json.encode({"at": round(entry.at, 3), _NAMES[type(entry.content)]: content}) + b"\n"


def parse(lines: Iterable[bytes | str]) -> Recording:
    """Parses a recording.

    Raises:
        RecordingError: A line is invalid.
    """
    numbered = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    number, first = next(numbered, (1, b"null"))
    try:
        header = msgspec.json.decode(first, type=dict[str, Any])
        if header.get("format") != FORMAT:
            raise ValueError(f"format: must be {FORMAT!r}")
        entries = list[Entry]()
        for number, line in numbered:  # noqa: B007 - the message below names the line
            entries.append(_entry(msgspec.json.decode(line, type=dict[str, Any]), entries[-1].at if entries else 0.0))
        number = 1
        return Recording(header.get("driver_version"), tuple(_complete(entries)))
    except (ValueError, msgspec.DecodeError) as error:
        raise RecordingError(f"line {number}: {error}") from error


def _entry(line: dict[str, Any], not_before: float) -> Entry:
    at = msgspec.convert(line.pop("at", None), float, strict=False)
    if not at >= not_before:
        raise ValueError(f"at: {at}: must not be less than {not_before}")
    if len(line) != 1 or not line.keys() <= _KINDS.keys():
        raise ValueError(f"must have one of {', '.join(_KINDS)}, not {', '.join(line) or 'nothing'}")
    ((name, content),) = line.items()
    kind = _KINDS[name]
    if unknown := set(content) - {field.name for field in fields(kind)}:
        raise ValueError(f"{name}: no field {', '.join(sorted(unknown))}")
    return Entry(at, msgspec.convert(content, kind))


def _complete(entries: list[Entry]) -> Iterator[Entry]:
    """Returns the entries; raises ValueError if a device is not described."""
    known = {entry.content.uuid for entry in entries if isinstance(entry.content, DeviceInfo)}
    for entry in entries:
        if entry.content.uuid is not None and entry.content.uuid not in known:
            raise ValueError(f"device {entry.content.uuid} is not described")
        yield entry
