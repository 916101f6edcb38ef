"""A recording of a node's hardware: what it said and when, one JSON object a line.

    {"format": "gpufleet-recording/1", "driver_version": "580.95.05"}
    {"at": 0.0, "device": {"uuid": "GPU-1", "index": 0, "model": "NVIDIA H100 80GB HBM3", ...}}
    {"at": 0.2, "reading": {"uuid": "GPU-1", "memory_total_mib": 81559, "utilization_percent": 37, ...}}
    {"at": 0.2, "slow": {"uuid": "GPU-1", "process_count": 1, ...}}
    {"at": 7.5, "event": {"uuid": "GPU-1", "kind": "XidError", "code": 79, "message": "...", "fault": true}}
    {"at": 8.0, "error": {"uuid": "GPU-1", "kind": "DeviceLost", "message": "..."}}
    {"at": 9.0, "error": {"uuid": null, "kind": "Unavailable", "message": "..."}}

`at` is in seconds and never falls. The fields of the rest are those of the dataclasses in `devices.base`; an absent one
was not reported. A reading stands until the next one of its device, and so does an error; one that names no device
stands until the next line of any device. So only changes need lines.
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
"""By their names in a recording."""


class RecordingError(ValueError):
    """The file is no recording. Says in which line, and why."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that the hardware did not answer."""

    uuid: str | None
    """None: the hardware as a whole."""
    kind: str
    message: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ({UNAVAILABLE} if self.uuid is None else DEVICE_ERRORS):
            raise ValueError(f"no failure {self.kind!r} of {self.uuid or 'the hardware'}")

    def error(self) -> HardwareError:
        """The error to raise."""
        if self.uuid is None:
            return HardwareUnavailableError(self.message or "recorded as unavailable")
        return DEVICE_ERRORS[self.kind](self.uuid, self.message)


def failure_of(error: HardwareError) -> Failure | None:
    """An error as a recording has it; None for one that ends the process, which a recording can't play."""
    if isinstance(error, HardwareUnavailableError):
        return Failure(None, UNAVAILABLE, str(error))
    if isinstance(error, DeviceError):
        for name, kind in DEVICE_ERRORS.items():  # DeviceAccessError, the narrower one, comes first
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
    """A file, read."""

    driver_version: str | None
    entries: tuple[Entry, ...]

    @property
    def seconds(self) -> float:
        """How long it plays. The last line is given as long as the one before it had, and at least a second."""
        times = sorted({entry.at for entry in self.entries}) or [0.0]
        return times[-1] + max(1.0, times[-1] - times[-2] if len(times) > 1 else 1.0)

    def devices(self) -> tuple[DeviceInfo, ...]:
        """Every device that occurs, as last described, in index order."""
        infos = {entry.content.uuid: entry.content for entry in self.entries if isinstance(entry.content, DeviceInfo)}
        return tuple(sorted(infos.values(), key=lambda info: info.index))


def render_header(driver_version: str | None) -> bytes:
    """The first line."""
    header = {"format": FORMAT} | ({} if driver_version is None else {"driver_version": driver_version})
    return msgspec.json.encode(header) + b"\n"


def render(entry: Entry) -> bytes:
    """A later line."""
    content = msgspec.to_builtins(entry.content, order="deterministic")
    if not isinstance(entry.content, Failure | DeviceEvent):
        content = {name: value for name, value in content.items() if value is not None}
    return msgspec.json.encode({"at": round(entry.at, 3), _NAMES[type(entry.content)]: content}) + b"\n"


def parse(lines: Iterable[bytes | str]) -> Recording:
    """Read a recording.

    Raises:
        RecordingError: With the number of the line.
    """
    numbered = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    number, first = next(numbered, (1, b"null"))
    try:
        header = msgspec.json.decode(first, type=dict[str, Any])
        if header.get("format") != FORMAT:
            raise ValueError(f"the first line has no format {FORMAT!r}")
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
        raise ValueError(f"time {at} comes after {not_before}")
    if len(line) != 1 or not line.keys() <= _KINDS.keys():
        raise ValueError(f"wanted one of {', '.join(_KINDS)} beside `at`, not {', '.join(line) or 'nothing'}")
    ((name, content),) = line.items()
    kind = _KINDS[name]
    if unknown := set(content) - {field.name for field in fields(kind)}:
        raise ValueError(f"{name}: no field {', '.join(sorted(unknown))}")
    return Entry(at, msgspec.convert(content, kind))


def _complete(entries: list[Entry]) -> Iterator[Entry]:
    """The entries, once it is sure that each is of a device that is described."""
    known = {entry.content.uuid for entry in entries if isinstance(entry.content, DeviceInfo)}
    for entry in entries:
        if entry.content.uuid is not None and entry.content.uuid not in known:
            raise ValueError(f"nothing describes the device {entry.content.uuid}")
        yield entry
