"""The state of the node's devices, safe to use from any thread.

The devices' threads write, the event loop reads. There is one lock, held for microseconds; nothing blocks under it.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

from gpufleet_agent.devices.base import DeviceEvent, DeviceInfo, Reading, Sample, SlowReading, UnknownDeviceError
from gpufleet_agent.sampling.device_record import DeviceRecord
from gpufleet_agent.sampling.device_record import Instant as Instant  # noqa: PLC0414 - re-exported
from gpufleet_agent.sampling.errors import ImplausibleSampleError, SamplerClosedError
from gpufleet_agent.sampling.health import DeviceHealth, HealthPolicy, ReadFault, for_successor
from gpufleet_agent.sampling.saved_state import FaultAcknowledgment, SavedDevice, SavedState
from gpufleet_agent.sampling.snapshot import NodeSnapshot
from gpufleet_agent.sampling.validate import NO_FACTS, validate, validate_facts, without_invalid
from gpufleet_agent.sampling.window import MAX_SAMPLES, SampleWindow

READ_FAILED = "ReadFailed"
"""Counts failed reads, in addition to the reasons of `InvalidReason`."""


@dataclass(slots=True)
class _Changes:
    """Whether anything changed that increments `health_version`."""

    any: bool = False

    def note(self, *, changed: bool) -> None:
        self.any = self.any or changed


class NodeRegistry:
    """The devices of the node, with windows, health and counters."""

    def __init__(
        self,
        *,
        window_seconds: float,
        sample_seconds: float,
        facts_seconds: float = 15.0,
        policy: HealthPolicy,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Starts without devices.

        Args:
            window_seconds: Length of each device's window.
            sample_seconds: Sampling interval; determines the window's capacity.
            facts_seconds: Maximum age of the slow reading that samples include.
            policy: When a device is healthy.
            on_change: Called after `health_version` increased, in the thread that caused it, without the lock.
        """
        self._window_seconds = window_seconds
        self._capacity = min(MAX_SAMPLES, int(window_seconds / sample_seconds) + 2)
        self._facts_seconds = facts_seconds
        self._policy = policy
        self._on_change = on_change
        self._lock = threading.Lock()
        self._devices: dict[str, DeviceRecord] = {}
        self._driver_version: str | None = None
        self._unavailable: str | None = None
        self._unlisted = 0
        self._pending_states: list[SavedState] = []
        self._driver_before: str | None = None
        """Of the last state that was restored."""
        self._listed_once = False
        self._registered_once = False
        """Whether the hardware was listed, or found to be unavailable, once."""
        self._version = 0
        self._samples = 0
        self._dropped: Counter[str] = Counter()
        self._dropped_values: Counter[tuple[str, str]] = Counter()
        self._closed = False

    @property
    def health_version(self) -> int:
        """Increases with every change of a device's health or of the list of devices."""
        return self._version

    @property
    def closed(self) -> bool:
        return self._closed

    def register(
        self, devices: Iterable[DeviceInfo], driver_version: str | None, now: Instant, *, unlisted: int = 0
    ) -> None:
        """Updates the list of devices.

        New devices are added, known ones keep their state, and missing ones count as lost: a device that vanished is
        a fault. If other devices have its bus address, it was divided, joined or replaced, and they get its faults.
        """
        listed = {info.uuid: without_invalid(info) for info in devices}
        with self._writing() as changes:
            self._driver_version = self._driver_before = driver_version
            self._registered_once = True
            changes.note(changed=self._unavailable is not None)
            self._unavailable = None
            self._unlisted = unlisted
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
            self._listed_once = True
            self._restore_pending(changes, now)
            for uuid, device in tuple(self._devices.items()):
                successors = [] if device.listed else self._at_bus_address_of(device.info)
                health, last = device.health.inheritance()
                for successor in successors:
                    successor.restore(health, now.wall, now, last)
                if successors:
                    del self._devices[uuid]
                    changes.note(changed=True)
                elif not device.listed:
                    changes.note(changed=self._not_listed(device, now))

    def unavailable(
        self, message: str, now: Instant, fault: ReadFault = ReadFault.DRIVER_UNAVAILABLE, *, unloaded: bool = False
    ) -> None:
        """Records that the hardware does not answer: every device gets this fault.

        Args:
            message: The reason.
            now: The time.
            fault: The fault.
            unloaded: The driver was certainly not loaded, so devices come back from this as from a reset. An attempt
                to open it that fails for another reason proves nothing.
        """
        with self._writing() as changes:
            changes.note(changed=self._unavailable != message)
            self._unavailable = message
            self._listed_once = True
            self._restore_pending(changes, now)
            for device in self._devices.values():
                device.listed = False
                changes.note(changed=device.health.failed_read(fault, message, now.wall, sure=unloaded))

    def restore(self, past: SavedState, now: Instant) -> None:
        """Restores what an earlier process saved; now, or once the devices are listed.

        Devices that are missing now are faults, as they would be without the restart. If the driver's version changed,
        the driver was reloaded and all devices were reset: then only missing devices are restored.
        """
        with self._writing() as changes:
            self._pending_states.append(past)
            if self._listed_once:
                self._restore_pending(changes, now)

    def acknowledge(self, acknowledgment: FaultAcknowledgment, now: Instant) -> None:
        """Clears acknowledged faults: events, and missing devices. Faults that are still observed stay.

        Future faults cannot be acknowledged: a time in the future counts as `now`.
        """
        until = min(acknowledgment.until, now.wall)
        with self._writing() as changes:
            for uuid, device in tuple(self._devices.items()):
                if not acknowledgment.covers(uuid):
                    continue
                lost_since = device.health.since(ReadFault.DEVICE_LOST)
                missing = not device.listed and self._unavailable is None
                if missing and lost_since is not None and lost_since <= until:
                    del self._devices[uuid]
                    changes.note(changed=True)
                else:
                    changes.note(changed=device.acknowledge(until, now))

    def record(self, reading: Reading, now: Instant) -> Sample:
        """Validates a reading and adds it as a sample.

        Raises:
            ImplausibleSampleError: The reading was dropped and counted; the last valid sample stays and ages.
            SamplerClosedError: The registry is closed.
        """
        error: ImplausibleSampleError | None = None
        with self._writing() as changes:
            device = self._devices.get(reading.uuid)
            facts = NO_FACTS if device is None else device.fresh_facts(now, self._facts_seconds)
            self._count_unreadable(reading)
            if device is not None:
                changes.note(changed=device.observe(reading, now))
            try:
                sample = validate(reading, registered=self._devices, taken_at=now.wall, facts=facts)
            except ImplausibleSampleError as impossible:
                self._dropped[impossible.reason] += 1
                error = impossible
            else:
                self._samples += 1
                changes.note(changed=self._devices[reading.uuid].add_sample(sample, now))
        if error is not None:
            raise error
        return sample

    def record_slow(
        self, reading: SlowReading, now: Instant, begun: float | None = None
    ) -> tuple[ImplausibleSampleError, ...]:
        """Validates a slow reading; the samples that follow include it.

        Args:
            reading: The reading.
            now: The time.
            begun: When the read began, in monotonic seconds; None: now.

        Returns:
            An error for each value that is impossible. It was dropped and counted.

        Raises:
            ImplausibleSampleError: The device is not registered.
            SamplerClosedError: The registry is closed.
        """
        with self._writing() as changes:
            try:
                facts, dropped = validate_facts(reading, registered=self._devices)
            except ImplausibleSampleError as error:
                self._dropped[error.reason] += 1
                raise
            self._count_unreadable(reading)
            self._dropped_values.update((error.field, error.reason.value) for error in dropped)
            changes.note(
                changed=self._devices[reading.uuid].add_facts(facts, now, now.monotonic if begun is None else begun)
            )
        return dropped

    def failed(self, uuid: str, fault: ReadFault, message: str, now: Instant, *, slow: bool = False) -> None:
        """Records that a read of the device (`slow`: a slow one) failed, or is overdue.

        Raises:
            UnknownDeviceError: No such device is registered.
            SamplerClosedError: The registry is closed.
        """
        with self._writing() as changes:
            device = self._device(uuid)
            if fault is not ReadFault.UNRESPONSIVE:
                self._dropped[READ_FAILED] += 1
            changes.note(changed=device.health.failed_read(fault, message, now.wall, slow=slow))

    def event(self, event: DeviceEvent, now: Instant) -> None:
        """Counts an event, and records it if it is a fault or a warning. Raises as `failed` does.

        An event without a device may be any device's, so all devices get it.
        """
        with self._writing() as changes:
            devices = self._devices.values() if event.uuid is None else (self._device(event.uuid),)
            for device in devices:
                changes.note(changed=device.add_event(event, now))
                if event.contained:
                    self._contain(device, now)

    @property
    def unlisted(self) -> int:
        """Number of devices that the hardware did not list because they do not answer."""
        return self._unlisted

    def faults(self) -> frozenset[str]:
        """Returns the codes of all active faults."""
        with self._lock:
            return frozenset[str]().union(*(device.health.active_faults for device in self._devices.values()))

    def snapshot(self, now: Instant) -> NodeSnapshot:
        """Returns the state at `now`. Works after `close`."""
        with self._lock:
            sampled = [device for device in self._devices.values() if device.sample is not None]
            newest = max(sampled, key=lambda device: device.sampled_at, default=None)
            ordered = sorted(self._devices.values(), key=lambda device: device.info.index)
            devices = tuple(device.snapshot(now) for device in ordered)
            return NodeSnapshot(
                devices=devices,
                driver_version=self._driver_version,
                sample_time=None if newest is None or newest.sample is None else newest.sample.taken_at,
                sample_age_seconds=None if newest is None else now.monotonic - newest.sampled_at,
                health_version=self._version,
                unavailable=self._unavailable,
                unlisted=self._unlisted,
                samples=self._samples,
                dropped=MappingProxyType(dict(self._dropped)),
                dropped_values=MappingProxyType(dict(self._dropped_values)),
            )

    def saved_state(self, now: Instant) -> SavedState | None:
        """Returns the faults that the hardware may not report again; None if the devices are not known yet.

        Works after `close`.
        """
        with self._lock:
            if not self._listed_once:
                return None
            devices = {}
            for uuid, device in self._devices.items():
                health, last = device.health.saved_state()
                devices[uuid] = SavedDevice(device.info, health, last)
            return SavedState(now.wall, self._driver_version or self._driver_before, devices)

    def close(self) -> None:
        """Rejects all further writes."""
        with self._lock:
            self._closed = True

    def _contain(self, device: DeviceRecord, now: Instant) -> None:
        """Records a contained error. All partitions of a GPU report the same count."""
        parent = device.info.parent
        for other in self._devices.values():
            if other is device or (parent is not None and other.info.parent == parent):
                before = other.fresh_facts(now, self._facts_seconds)
                other.contained.occurred(before, now.monotonic, elsewhere=other is not device)

    def _count_unreadable(self, reading: Reading | SlowReading) -> None:
        if reading.unreadable:
            self._dropped_values.update((value, READ_FAILED) for value in reading.unreadable)

    def _add(self, info: DeviceInfo) -> DeviceRecord:
        window = SampleWindow(seconds=self._window_seconds, capacity=self._capacity)
        device = self._devices[info.uuid] = DeviceRecord(info, DeviceHealth(self._policy), window)
        return device

    def _restore_pending(self, changes: _Changes, now: Instant) -> None:
        pending, self._pending_states = self._pending_states, []
        for state in pending:
            self._restore_one(state, changes, now)

    def _restore_one(self, past: SavedState, changes: _Changes, now: Instant) -> None:
        if not self._registered_once:
            # Faults recorded under a driver of unknown version must not be saved as those of an older driver: they
            # would end when the version becomes known.
            self._driver_before = past.driver_version or self._driver_before
        reloaded = self._driver_version is not None and past.driver_version not in {None, self._driver_version}
        for uuid, was in past.devices.items():
            known = self._devices.get(uuid)
            successors, health = [known] if known is not None else self._at_bus_address_of(was.info), was.health
            if known is None and successors:
                # A GPU that is divided differently is still the same GPU: faults that need a reset stay.
                health = for_successor(health)
            elif not successors:
                successors = [self._add_missing(without_invalid(was.info), now)]
                changes.note(changed=True)
            for successor in successors:
                if not reloaded:
                    changes.note(changed=successor.restore(health, past.reported_at, now, was.last_seen))
                changes.note(changed=successor.health.withdraw(past.cleared.get(uuid, ()), now.wall))

    def _add_missing(self, info: DeviceInfo, now: Instant) -> DeviceRecord:
        device = self._add(info)
        device.listed = False
        if self._unavailable is None:
            self._not_listed(device, now)
        else:
            device.health.failed_read(ReadFault.DRIVER_UNAVAILABLE, self._unavailable, now.wall, sure=False)
        return device

    def _at_bus_address_of(self, info: DeviceInfo) -> list[DeviceRecord]:
        """Returns the listed devices at the bus address of one that is not listed."""
        if info.pci_bus_id is None:
            return []
        return [known for known in self._devices.values() if known.listed and known.info.pci_bus_id == info.pci_bus_id]

    def _not_listed(self, device: DeviceRecord, now: Instant) -> bool:
        # An unlisted device that did not identify itself may be this one, and only slow.
        message = "the driver no longer lists it"
        return device.health.failed_read(ReadFault.DEVICE_LOST, message, now.wall, sure=not self._unlisted)

    def _device(self, uuid: str) -> DeviceRecord:
        device = self._devices.get(uuid)
        if device is None:
            raise UnknownDeviceError(uuid, "no such device is registered")
        return device

    @contextmanager
    def _writing(self) -> Iterator["_Changes"]:
        """Holds the lock, rejects writes after `close`, and reports the changes that the body noted."""
        changes = _Changes()
        with self._lock:
            if self._closed:
                raise SamplerClosedError("the sampler is closed")
            yield changes
            if changes.any:
                self._version += 1
        if changes.any:
            self._on_change()
