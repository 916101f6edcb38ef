"""What the node's object remembers of faults: those that an earlier process reported, and what was acknowledged.

A fault may stand that the driver can't tell again: an XID is reported once, and a device that fell off the bus is not
even listed any more. After a restart the agent's own last status is a witness, beside the file on the node. It is read
leniently: whatever it lacks is left out, since a report that can't be understood must not keep the agent from its work.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import structlog

from gpufleet_agent.devices.base import DeviceInfo, Recovery
from gpufleet_agent.faults.merge import changes_since, is_status_newer, merge, only_cleared, without_acknowledged_losses
from gpufleet_agent.kube.model import TelemetryObject
from gpufleet_agent.sampling.saved_state import Checkpoint, FaultAcknowledgment, SavedDevice, SavedState
from gpufleet_agent.sampling.snapshot import HealthReason, HealthSnapshot, HealthState
from gpufleet_common import timestamps

T = TypeVar("T")

log = structlog.get_logger(__name__)


MAX_ACKNOWLEDGMENTS = 256
_NEVER = 0.0
"""Nothing happened that early."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""The node's also in a container."""


class FaultRestorer:
    """Hands over what the object remembers: the last report once, and each acknowledgement once.

    An annotation stays on the object and is in every version of it. Handed over again it would forgive faults that came
    after it, whenever its time isn't past by the node's clock: it lies ahead, or the clock was set back.
    So those that had counted by the node's file don't count again: what they forgave isn't in it,
    and what is in it came later, whatever the clock says. Where the process before us may have had them, they count up
    to its last report at most, and not at all while their time is to come.

    Args:
        boot_id: Of the node, now.
        restore: Takes the report.
        acknowledge: Takes each acknowledgement.
        unreadable: Called for each part of the report that makes no sense.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        boot_id: str | None,
        restore: Callable[[SavedState], None],
        acknowledge: Callable[[FaultAcknowledgment], None],
        unreadable: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._boot_id = boot_id
        self._restore = restore
        self._acknowledge = acknowledge
        self._unreadable = unreadable
        self._clock = clock
        self._restored = False
        self._file: Checkpoint | None = None
        self._status: SavedState | None = None
        """Of the first version."""
        self._seen: dict[FaultAcknowledgment, float] = {}
        """Each that was handed over, and up to when it counted."""
        self._named: tuple[FaultAcknowledgment, ...] = ()

    def remember(self, file: Checkpoint) -> None:
        """The node's file was read, and what it says taken over; before the first version, if the disk answers."""
        self._file = file
        if not self._restored:
            return
        # Too late to be told from: what has ended since it was written ends again.
        if self._status is not None and is_status_newer(self._status, file):
            self._restore(only_cleared(changes_since(merge(file.past, self._status, status_is_newer=True), file.past)))
        for acknowledgement, until in self._seen.items():
            if until != _NEVER and acknowledgement not in file.acknowledged:
                self._acknowledge(replace(acknowledgement, until=until))

    @property
    def acknowledged(self) -> Mapping[FaultAcknowledgment, float]:
        """What the object acknowledges, and up to when that counted; seconds since the epoch. The last 256."""
        if not self._restored and self._file is not None:
            return self._file.acknowledged  # the object hasn't been seen yet, and may still say so
        return {one: self._seen[one] for one in self._named[-MAX_ACKNOWLEDGMENTS:]}

    def observe(self, version: TelemetryObject) -> None:
        """Look at a version of the object. The first one has what the process before us wrote last."""
        first, self._restored = not self._restored, True
        past = self._take_over(read_status(version.status, self._boot_id, self._unreadable)) if first else None
        self._named = read_acknowledgments(version.acknowledged)
        for acknowledgement in self._named:
            if acknowledgement in self._seen:
                continue
            counted = None if self._file is None else self._file.acknowledged.get(acknowledgement)
            if counted is not None:
                self._seen[acknowledgement] = counted
                continue
            until = self._counts_until(acknowledgement, None if past is None else past.reported_at, first=first)
            self._seen[acknowledgement] = min(until, self._clock())
            if until != _NEVER:
                self._acknowledge(replace(acknowledgement, until=until))

    def _counts_until(self, acknowledgement: FaultAcknowledgment, reported: float | None, *, first: bool) -> float:
        until = acknowledgement.until
        if first and until > self._clock():
            log.warning("an acknowledgement whose time is still to come is ignored", until=until)
            return _NEVER
        return until if reported is None else min(until, reported)

    def _take_over(self, status: SavedState | None) -> SavedState | None:
        file, self._status = self._file, status
        if file is None or status is None:
            if status is not None:
                self._restore(status)
            return status if file is None else file.past
        newer = is_status_newer(status, file)
        merged = merge(file.past, status if newer else without_acknowledged_losses(status, file), status_is_newer=newer)
        self._restore(changes_since(merged, file.past))
        return merged


def read_boot_id(path: Path = BOOT_ID) -> str | None:
    """Which boot of the node this is; None when the kernel doesn't say."""
    try:
        return path.read_text(encoding="ascii").strip() or None
    except OSError:
        return None


def read_status(
    status: Mapping[str, Any], boot_id: str | None, unreadable: Callable[[], None] = lambda: None
) -> SavedState | None:
    """What the last report says about the devices; None when there is none, or it is of another boot.

    A node that was booted has had its devices reset, and maybe exchanged.

    Args:
        status: Of the object.
        boot_id: Of the node, now. None: not known, and the report counts.
        unreadable: Called for each part that makes no sense; it may be of another version of the API.
    """
    reported = timestamps.to_epoch(status.get("observedAt"))
    if reported is None or (boot_id is not None and status.get("bootId", boot_id) != boot_id):
        return None
    try:
        driver_version, entries = _text(status, "driverVersion"), _items(status, "devices")
    except TypeError as error:
        log.warning("our last report can't be read", error=repr(error))
        unreadable()
        return None
    devices = {}
    for entry in entries:
        try:
            device = SavedDevice(_info(entry), _health(entry["health"], reported))
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            log.warning("a device of our last report can't be read", error=repr(error))
            unreadable()
            continue
        devices[device.info.uuid] = device
    return SavedState(reported, driver_version, devices)


def read_acknowledgments(text: str) -> tuple[FaultAcknowledgment, ...]:
    """The annotation's value: times, each about the whole node or, after `<uuid>=`, about one device.

    What isn't a time is left out.
    """
    return tuple(_acknowledgements(text))


def _acknowledgements(text: str) -> Iterator[FaultAcknowledgment]:
    for entry in text.split(","):
        uuid, _, time = entry.strip().rpartition("=")
        until = timestamps.to_epoch(time)
        if until is not None:
            yield FaultAcknowledgment(until, uuid or None)
        elif entry.strip():
            log.warning("an acknowledgement that is no time is ignored", entry=entry.strip())


def _info(entry: Mapping[str, Any]) -> DeviceInfo:
    return DeviceInfo(
        uuid=_required(entry, "uuid"),
        index=int(entry["index"]),
        model=_required(entry, "model"),
        architecture=_text(entry, "architecture"),
        compute_capability=_text(entry, "computeCapability"),
        pci_bus_id=_text(entry, "pciBusId"),
        numa_node=_integer(entry, "numaNode"),
        nvlink_peers=tuple(_of(str, peer) for peer in _items(entry, "nvlinkPeers")),
        memory_total_mib=_integer(entry, "memoryTotalMiB"),
    )


def _health(entry: Mapping[str, Any], reported: float) -> HealthSnapshot:
    reasons = tuple(_reason(reason, reported, fault=True) for reason in _items(entry, "reasons"))
    warnings = tuple(_reason(reason, reported, fault=False) for reason in _items(entry, "warnings"))
    return HealthSnapshot(HealthState(entry["state"]), reasons, timestamps.to_epoch(entry.get("since")), warnings)


def _reason(entry: Mapping[str, Any], reported: float, *, fault: bool) -> HealthReason:
    since = timestamps.to_epoch(entry.get("since"))
    return HealthReason(
        code=_required(entry, "code"),
        message=_text(entry, "message") or "",
        since=reported if since is None else since,
        recovery=Recovery(entry.get("recovery", Recovery.AUTOMATIC)),
        fault=fault,
    )


def _of(kind: type[T], value: Any) -> T:
    """The value, if it is what it should be: nothing else may get into what the agent reports again."""
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is not of type {kind.__name__}")
    return value


def _required(entry: Mapping[str, Any], field: str) -> str:
    return _of(str, entry[field])


def _text(entry: Mapping[str, Any], field: str) -> str | None:
    value = entry.get(field)
    return None if value is None else _of(str, value)


def _integer(entry: Mapping[str, Any], field: str) -> int | None:
    value = entry.get(field)
    return None if value is None else _of(int, value)


def _items(entry: Mapping[str, Any], field: str) -> list[Any]:
    value = entry.get(field)
    return [] if value is None else _of(list, value)
