"""Everything that is known of the node's devices, safe to write and read from any thread.

Readers' threads write, the event loop reads. One lock, held for microseconds, and nothing inside it blocks.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType

from gpufleet_agent.devices.base import (
    DeviceEvent,
    DeviceInfo,
    Facts,
    Reading,
    Sample,
    SlowReading,
    UnknownDeviceError,
)
from gpufleet_agent.sampling.errors import InvalidSampleError, SamplerClosedError
from gpufleet_agent.sampling.health import DeviceHealth, HealthPolicy, ReadFault, for_successor
from gpufleet_agent.sampling.saved_state import FaultAcknowledgment, SavedDevice, SavedState
from gpufleet_agent.sampling.snapshot import DeviceSnapshot, EventCount, NodeSnapshot
from gpufleet_agent.sampling.thresholds import observe_facts, observe_sample, unreported
from gpufleet_agent.sampling.validate import NO_FACTS, believable, validate, validate_facts
from gpufleet_agent.sampling.window import MAX_SAMPLES, SampleWindow

READ_FAILED = "ReadFailed"
"""Counts reads that the hardware did not answer, beside the `Invalid` ones."""


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment by both clocks: windows and ages go by the monotonic one, people by the other."""

    monotonic: float
    wall: float
    """Seconds since the epoch."""


@dataclass(slots=True)
class _Device:
    info: DeviceInfo
    health: DeviceHealth
    window: SampleWindow
    sample: Sample | None = None
    sampled_at: float = 0.0
    facts: Facts = NO_FACTS
    facts_at: float = 0.0
    listed: bool = True
    """False: the driver doesn't list it, or nothing does as there is no driver."""
    events: dict[tuple[str, int], EventCount] = field(default_factory=dict)


@dataclass(slots=True)
class _Changes:
    """Whether something changed that raises `health_version`."""

    any: bool = False

    def note(self, *, changed: bool) -> None:
        self.any = self.any or changed


class NodeRegistry:
    """The devices of the node with windows, health and counters."""

    def __init__(
        self,
        *,
        window_seconds: float,
        sample_seconds: float,
        facts_seconds: float = 15.0,
        policy: HealthPolicy,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Start with no device.

        Args:
            window_seconds: Length of each device's window.
            sample_seconds: How often samples are to be expected; sets the window's capacity.
            facts_seconds: How old the last slow reading may be for samples to carry it.
            policy: When a device is healthy.
            on_change: Called after `health_version` rose, in the thread that caused it, without the lock.
        """
        self._window_seconds = window_seconds
        self._capacity = min(MAX_SAMPLES, int(window_seconds / sample_seconds) + 2)
        self._facts_seconds = facts_seconds
        self._policy = policy
        self._on_change = on_change
        self._lock = threading.Lock()
        self._devices: dict[str, _Device] = {}
        self._driver_version: str | None = None
        self._unavailable: str | None = None
        self._left_out = 0
        self._pasts: list[SavedState] = []
        self._driver_before: str | None = None
        """Of the last report that was taken over."""
        self._looked = False
        """Whether it is known what the hardware lists, or that nothing does."""
        self._version = 0
        self._samples = 0
        self._dropped: Counter[str] = Counter()
        self._closed = False

    @property
    def health_version(self) -> int:
        """Rises with every change of a device's health and of the list of devices."""
        return self._version

    @property
    def closed(self) -> bool:
        """True once `close` was called."""
        return self._closed

    def register(
        self, devices: Iterable[DeviceInfo], driver_version: str | None, now: Instant, *, unlisted: int = 0
    ) -> None:
        """Take over what the hardware lists now.

        New devices are added, known ones keep their past, and known ones that are missing count as lost: a device
        that vanished from its slot is a fault to be told, not to be forgotten. Unless others are in its place: then
        it was divided, joined or exchanged, and these have its faults.
        """
        listed = {info.uuid: believable(info) for info in devices}
        with self._writing() as changes:
            self._driver_version = driver_version
            changes.note(changed=self._unavailable is not None)
            self._unavailable = None
            self._left_out = unlisted
            for uuid, info in listed.items():
                known = self._devices.get(uuid)
                if known is None:
                    self._add(info)
                    changes.note(changed=True)
                elif known.info != info:
                    known.info = info
                    changes.note(changed=True)
            for uuid, device in self._devices.items():
                device.listed = uuid in listed
            self._looked = True
            self._recall(changes, now)
            for uuid, device in tuple(self._devices.items()):
                heirs = [] if device.listed else self._at_the_place_of(device.info)
                health, last = device.health.bequest()
                for heir in heirs:
                    heir.health.restore(health, now.wall, now.monotonic, now.wall, last)
                if heirs:
                    del self._devices[uuid]
                    changes.note(changed=True)
                elif not device.listed:
                    changes.note(changed=self._not_listed(device, now))

    def unavailable(
        self, message: str, now: Instant, fault: ReadFault = ReadFault.DRIVER_UNAVAILABLE, *, unloaded: bool = False
    ) -> None:
        """The hardware as a whole doesn't answer: every known device has that fault.

        Args:
            message: Why, in words.
            now: The time.
            fault: What it is.
            unloaded: The driver was certainly not loaded, so that devices come back from this as from a reset. An
                attempt to open it that fails for another reason proves nothing.
        """
        with self._writing() as changes:
            changes.note(changed=self._unavailable != message)
            self._unavailable = message
            self._looked = True
            self._recall(changes, now)
            for device in self._devices.values():
                device.listed = False
                changes.note(changed=device.health.failed_read(fault, message, now.wall, sure=unloaded))

    def restore(self, past: SavedState, now: Instant) -> None:
        """Take over what an earlier process knew; at once, or when it is known which devices there are.

        Devices that are there no longer are faults to be told, as they would be without the restart. When the
        driver is another one, it was loaded anew and all devices with it: then only those are recalled.
        """
        with self._writing() as changes:
            self._pasts.append(past)
            if self._looked:
                self._recall(changes, now)

    def acknowledge(self, acknowledgement: FaultAcknowledgment, now: Instant) -> None:
        """Forgive what happened before: events, and that devices are listed no longer. What is still seen stays.

        What is yet to happen can't be vouched for: a time that lies ahead counts as `now`.
        """
        until = min(acknowledgement.until, now.wall)
        with self._writing() as changes:
            for uuid, device in tuple(self._devices.items()):
                if not acknowledgement.covers(uuid):
                    continue
                lost_since = device.health.since(ReadFault.DEVICE_LOST)
                missing = not device.listed and self._unavailable is None
                if missing and lost_since is not None and lost_since <= until:
                    del self._devices[uuid]
                    changes.note(changed=True)
                else:
                    untold = unreported(device.facts)
                    changes.note(changed=device.health.acknowledge(until, now.monotonic, now.wall, untold))

    def record(self, reading: Reading, now: Instant) -> Sample:
        """Validate a reading and add it.

        Raises:
            InvalidSampleError: Dropped and counted; the last good sample stays and ages.
            SamplerClosedError: Nothing is recorded any more.
        """
        with self._writing() as changes:
            device = self._devices.get(reading.uuid)
            fresh = device is not None and now.monotonic - device.facts_at <= self._facts_seconds
            facts = device.facts if device is not None and fresh else NO_FACTS
            try:
                sample = validate(reading, registered=self._devices, taken_at=now.wall, facts=facts)
            except InvalidSampleError as error:
                self._dropped[error.reason] += 1
                raise
            device = self._devices[reading.uuid]
            device.sample = sample
            # Two threads may come here in the other order than they looked at the clock.
            device.sampled_at = max(now.monotonic, device.sampled_at)
            device.window.append(sample, device.sampled_at)
            self._samples += 1
            changes.note(changed=device.health.good_read(now.monotonic, now.wall))
            changes.note(changed=device.health.shown(observe_sample(sample), now.wall))
        return sample

    def record_slow(self, reading: SlowReading, now: Instant) -> None:
        """Keep a slow reading: the samples that follow carry it. Raises as `record` does."""
        with self._writing() as changes:
            try:
                facts = validate_facts(reading, registered=self._devices)
            except InvalidSampleError as error:
                self._dropped[error.reason] += 1
                raise
            device = self._devices[reading.uuid]
            device.facts, device.facts_at = facts, now.monotonic
            device.health.good_slow_read()
            changes.note(changed=device.health.shown(observe_facts(facts), now.wall))

    def failed(self, uuid: str, fault: ReadFault, message: str, now: Instant, *, slow: bool = False) -> None:
        """A read of the device (`slow`: a slow one) failed, or is overdue.

        Raises:
            UnknownDeviceError: No such device is registered.
            SamplerClosedError: Nothing is recorded any more.
        """
        with self._writing() as changes:
            device = self._device(uuid)
            if fault is not ReadFault.UNRESPONSIVE:
                self._dropped[READ_FAILED] += 1
            changes.note(changed=device.health.failed_read(fault, message, now.wall, slow=slow))

    def event(self, event: DeviceEvent, now: Instant) -> None:
        """Count what a device reported, and hold it against the device when it is a fault. Raises as `failed` does.

        An event that names no device may be any device's, so all of them bear it.
        """
        with self._writing() as changes:
            devices = self._devices.values() if event.uuid is None else (self._device(event.uuid),)
            for device in devices:
                key = (event.kind, event.code)
                before = device.events.get(key)
                count = 1 if before is None else before.count + 1
                device.events[key] = EventCount(event.kind, event.code, count, now.wall)
                if event.fault:
                    fell = device.health.event(event, now.monotonic, now.wall)
                    changes.note(changed=fell)

    @property
    def unlisted(self) -> int:
        """Devices that the hardware didn't list because they don't answer."""
        return self._left_out

    def faults(self) -> frozenset[str]:
        """Codes of the faults that stand on any device."""
        with self._lock:
            return frozenset[str]().union(*(device.health.standing for device in self._devices.values()))

    def snapshot(self, now: Instant) -> NodeSnapshot:
        """What is known at `now`. Still answers after `close`."""
        with self._lock:
            sampled = [device for device in self._devices.values() if device.sample is not None]
            newest = max(sampled, key=lambda device: device.sampled_at, default=None)
            devices = tuple(
                DeviceSnapshot(
                    info=device.info,
                    health=device.health.snapshot(),
                    sample=device.sample,
                    sample_age_seconds=None if device.sample is None else now.monotonic - device.sampled_at,
                    window=device.window.stats(now.monotonic),
                    events=tuple(device.events[key] for key in sorted(device.events)),
                )
                for device in sorted(self._devices.values(), key=lambda device: device.info.index)
            )
            return NodeSnapshot(
                devices=devices,
                driver_version=self._driver_version,
                sample_time=None if newest is None or newest.sample is None else newest.sample.taken_at,
                sample_age_seconds=None if newest is None else now.monotonic - newest.sampled_at,
                health_version=self._version,
                unavailable=self._unavailable,
                unlisted=self._left_out,
                samples=self._samples,
                dropped=MappingProxyType(dict(self._dropped)),
            )

    def saved_state(self, now: Instant) -> SavedState | None:
        """What a later process may not hear again; None: it isn't known yet what devices there are.

        Still answers after `close`.
        """
        with self._lock:
            if not self._looked:
                return None
            devices = {}
            for uuid, device in self._devices.items():
                health, last = device.health.saved_state()
                devices[uuid] = SavedDevice(device.info, health, last)
            return SavedState(now.wall, self._driver_version or self._driver_before, devices)

    def close(self) -> None:
        """Refuse everything that would be recorded from now on."""
        with self._lock:
            self._closed = True

    def _add(self, info: DeviceInfo) -> _Device:
        window = SampleWindow(seconds=self._window_seconds, capacity=self._capacity)
        device = self._devices[info.uuid] = _Device(info, DeviceHealth(self._policy), window)
        return device

    def _recall(self, changes: _Changes, now: Instant) -> None:
        pasts, self._pasts = self._pasts, []
        for past in pasts:
            self._recall_one(past, changes, now)

    def _recall_one(self, past: SavedState, changes: _Changes, now: Instant) -> None:
        self._driver_before = past.driver_version or self._driver_before
        reloaded = self._driver_version is not None and past.driver_version not in {None, self._driver_version}
        for uuid, was in past.devices.items():
            known = self._devices.get(uuid)
            heirs, health = [known] if known is not None else self._at_the_place_of(was.info), was.health
            if known is None and heirs:
                # A GPU that is divided otherwise now is still the same: what it needs a reset for, it still does.
                health = for_successor(health)
            elif not heirs:
                heirs = [self._add_missing(believable(was.info), now)]
                changes.note(changed=True)
            for heir in heirs:
                if not reloaded:
                    restored = heir.health.restore(health, past.reported_at, now.monotonic, now.wall, was.last)
                    changes.note(changed=restored)
                changes.note(changed=heir.health.withdraw(past.cleared.get(uuid, ()), now.wall))

    def _add_missing(self, info: DeviceInfo, now: Instant) -> _Device:
        device = self._add(info)
        device.listed = False
        if self._unavailable is None:
            self._not_listed(device, now)
        else:
            device.health.failed_read(ReadFault.DRIVER_UNAVAILABLE, self._unavailable, now.wall, sure=False)
        return device

    def _at_the_place_of(self, info: DeviceInfo) -> "list[_Device]":
        """Devices that are listed at the bus address of one that isn't."""
        if info.pci_bus_id is None:
            return []
        return [known for known in self._devices.values() if known.listed and known.info.pci_bus_id == info.pci_bus_id]

    def _not_listed(self, device: _Device, now: Instant) -> bool:
        # One that is left out for not saying who it is may be this one, and just slow.
        message = "the driver lists it no longer"
        return device.health.failed_read(ReadFault.DEVICE_LOST, message, now.wall, sure=not self._left_out)

    def _device(self, uuid: str) -> _Device:
        device = self._devices.get(uuid)
        if device is None:
            raise UnknownDeviceError(uuid, "no such device is registered")
        return device

    @contextmanager
    def _writing(self) -> Iterator["_Changes"]:
        """Hold the lock, refuse once closed, and tell afterwards when the body noted a change."""
        changes = _Changes()
        with self._lock:
            if self._closed:
                raise SamplerClosedError("the sampler is closed: nothing is recorded any more")
            yield changes
            if changes.any:
                self._version += 1
        if changes.any:
            self._on_change()
