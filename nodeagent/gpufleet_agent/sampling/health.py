"""Whether a device can be used, as its reads, events and readings show.

A device is unhealthy if and only if it has a fault. Each kind of fault has its own rule (the table is in
docs/concepts/health.md, and a test compares the two):

    reads     DeviceLost, ResetRequired, DriverUnavailable and Unresponsive begin with one read that shows them,
              ReadFailed after `fail_reads` other failures in a row; reads and slow reads are counted separately. They
              end after `recover_reads` good reads in a row, once slow reads succeed as well.
    events    Begin with one event. End when the device was reset: it came back from DeviceLost or ResetRequired, or
              from DriverUnavailable if the driver itself reported that it was not loaded. Or when an administrator
              acknowledged them. Or after `recover_reads` reads in a row in which the driver reports the action *none*.
              Or, unless they need a reset, after `quiet_seconds` without another event while reads succeed.
    readings  See `conditions`: last as long as readings show them. Some are warnings, not faults.

An event caused by an application, and a sample rejected as invalid, change nothing here: they are counted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from gpufleet_agent.devices.base import DeviceEvent, Recovery, RecoveryAction
from gpufleet_agent.sampling.conditions.recovery_actions import ALL_THRESHOLDS
from gpufleet_agent.sampling.conditions.thresholds import Observation
from gpufleet_agent.sampling.snapshot import HealthReason, HealthSnapshot, HealthState


class ReadFault(StrEnum):
    """Faults that reads show."""

    DEVICE_LOST = "DeviceLost"
    RESET_REQUIRED = "ResetRequired"
    DRIVER_UNAVAILABLE = "DriverUnavailable"
    UNRESPONSIVE = "Unresponsive"
    READ_FAILED = "ReadFailed"


READ_FAULTS = frozenset(fault.value for fault in ReadFault)

_RESET = frozenset({ReadFault.DEVICE_LOST.value, ReadFault.RESET_REQUIRED.value, ReadFault.DRIVER_UNAVAILABLE.value})
"""A device that comes back from one of these was reset, if it is certain that it was this fault."""

_NEEDS_RESET = frozenset({ReadFault.DEVICE_LOST, ReadFault.RESET_REQUIRED})


def is_one_time(code: str) -> bool:
    """Returns whether the hardware may not report this fault again to a process that starts later.

    Events are reported once. A lost device may no longer be listed, and a device that needed a reset may have got
    it: coming back is what ends its events.
    """
    return code not in ALL_THRESHOLDS and (code not in READ_FAULTS or code in _NEEDS_RESET)


def for_successor(health: HealthSnapshot) -> HealthSnapshot:
    """Returns what devices at the bus address of a missing one inherit: all but that it is lost.

    They are present, so it was divided differently or replaced. That proves no reset.
    """
    reasons = tuple(reason for reason in health.reasons if reason.code != ReadFault.DEVICE_LOST)
    state = HealthState.UNHEALTHY if reasons else HealthState.HEALTHY
    return replace(health, state=state, reasons=reasons)


_STRENGTH = (Recovery.AUTOMATIC, Recovery.RESET, Recovery.REBOOT, Recovery.REPLACEMENT)


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """When faults begin and end."""

    recover_reads: int = 3
    """Good reads in a row that end a fault shown by reads."""
    fail_reads: int = 3
    """Unspecific failures in a row that begin a fault."""
    quiet_seconds: float = 600.0
    """Time after its last event at which an event's fault ends, unless it needs a reset."""

    def __post_init__(self) -> None:
        if self.recover_reads < 1 or self.fail_reads < 1 or self.quiet_seconds <= 0:
            raise ValueError("health: recover_reads and fail_reads must be at least 1, quiet_seconds greater than 0")


@dataclass(frozen=True, slots=True)
class _LastEvent:
    """The last event of a kind, by both clocks."""

    at: float
    wall: float
    restored: bool = False
    """Only an earlier process saw it."""


class DeviceHealth:
    """One device's health. Times: `at` is monotonic seconds, `wall` seconds since the epoch. Its owner locks."""

    __slots__ = (
        "_counts",
        "_events",
        "_failures",
        "_good",
        "_good_since",
        "_policy",
        "_reasons",
        "_reset_due",
        "_restored_reads",
        "_restored_since",
        "_since",
        "_slow_failures",
        "_unneeded_reads",
    )

    def __init__(self, policy: HealthPolicy) -> None:
        self._policy = policy
        self._reasons: dict[str, HealthReason] = {}
        """Active faults and warnings, by code."""
        self._events: dict[str, _LastEvent] = {}
        self._counts: dict[str, int] = {}
        """By threshold: readings in a row that contradict its current state."""
        self._restored_since: dict[str, float] = {}
        """By threshold: when it was crossed according to an earlier process."""
        self._restored_reads: set[str] = set()
        """Read faults that only an earlier process saw, until a read of this process shows them or they end."""
        self._since: float | None = None
        self._good = 0
        self._good_since = 0.0
        self._unneeded_reads = 0
        """Good reads since the last event in which the driver reports the action *none*."""
        self._reset_due = False
        """A device that comes back now was reset."""
        self._failures = 0
        self._slow_failures = 0
        """Slow reads that failed in a row: good reads in between do not count against these."""

    def good_read(self, at: float, wall: float, action: RecoveryAction | None = None) -> bool:
        """Records a successful read. Returns whether the snapshot changed.

        Args:
            at: Now.
            wall: Now.
            action: Recovery action that the driver reports; None: not reported.
        """
        self._failures = 0
        if not self._reasons and not self._events:
            self._good = 0
            return False  # as of most reads
        shown = frozenset(code for code in self._reasons if code in READ_FAULTS)
        if self._slow_failures >= self._policy.fail_reads:
            shown -= {ReadFault.READ_FAILED.value}
        if not shown and not self._events:
            self._good = 0
            return False
        if self._good == 0:
            self._good_since = at
        self._good += 1
        self._unneeded_reads = self._unneeded_reads + 1 if action is RecoveryAction.NONE else 0
        if self._good < self._policy.recover_reads:
            return False
        ended = set(shown)
        unneeded = self._unneeded_reads >= self._policy.recover_reads
        reset_due = self._reset_due or not _NEEDS_RESET.isdisjoint(self._restored_reads)
        for code, last in self._events.items():
            # An event after the first good read is about the device as it came back: the reset did not fix it.
            was_reset = reset_due and last.at <= self._good_since
            by_itself = self._reasons[code].recovery is Recovery.AUTOMATIC
            if unneeded or was_reset or (by_itself and at - last.at >= self._policy.quiet_seconds):
                ended.add(code)
        self._reset_due = False
        return self._end(ended, wall)

    def good_slow_read(self) -> None:
        """Records a successful slow read. If slow reads caused the fault, good reads end it."""
        self._slow_failures = 0

    def failed_read(
        self, fault: ReadFault, message: str, wall: float, *, sure: bool = True, slow: bool = False
    ) -> bool:
        """Records that a read failed, or is overdue. Returns whether the snapshot changed.

        Args:
            fault: What it shows.
            message: The reason.
            wall: Now.
            sure: False if it may be another fault, so that coming back from it proves no reset.
            slow: It was a slow read. Unspecific failures of slow reads are counted separately.
        """
        if fault is ReadFault.READ_FAILED and slow:
            self._slow_failures += 1
            if self._slow_failures < self._policy.fail_reads:
                return False
        else:
            self._good = 0
        self._reset_due = self._reset_due or (sure and fault in _RESET) or fault in _NEEDS_RESET & self._restored_reads
        self._restored_reads.discard(fault)
        if fault is ReadFault.READ_FAILED and not slow:
            self._failures += 1
            if self._failures < self._policy.fail_reads:
                return False
        recovery = Recovery.RESET if fault in _NEEDS_RESET else Recovery.AUTOMATIC
        return self._begin(HealthReason(fault.value, message, wall, recovery))

    def event(self, event: DeviceEvent, at: float, wall: float) -> bool:
        """Records an event that is a fault or a warning. Returns whether the snapshot changed."""
        code = event.warning or event.kind
        self._events[code] = _LastEvent(at, wall)
        self._unneeded_reads = 0
        known = self._reasons.get(code)
        if known is not None and _STRENGTH.index(known.recovery) > _STRENGTH.index(event.recovery):
            return False  # keep the stronger recovery
        return self._begin(HealthReason(code, event.message, wall, event.recovery, fault=event.warning is None))

    def observe(self, observations: Sequence[Observation], wall: float) -> bool:
        """Records whether thresholds are crossed. Returns whether the snapshot changed."""
        if not (self._reasons or self._counts or self._restored_since or any(count for _, count in observations)):
            return False  # nothing is active, begins or was restored, as in most readings
        changed = False
        for threshold, count in observations:
            active = threshold.code in self._reasons
            if active == bool(count):
                self._counts.pop(threshold.code, None)
                if not active:
                    self._restored_since.pop(threshold.code, None)
                    continue
            else:
                contradictions = self._counts[threshold.code] = self._counts.get(threshold.code, 0) + 1
                if contradictions < (threshold.fall if active else threshold.rise):
                    continue
                del self._counts[threshold.code]
            if count:
                since = self._restored_since.pop(threshold.code, wall)
                message = threshold.message.format(count=count)
                reason = HealthReason(threshold.code, message, since, threshold.recovery, fault=threshold.fault)
                changed = self._begin(reason) or changed
            else:
                changed = self._end({threshold.code}, wall) or changed
        return changed

    def acknowledge(self, until: float, at: float, wall: float, unreported: Iterable[str] = ()) -> bool:
        """Ends the faults that an administrator acknowledged. Returns whether the snapshot changed.

        Args:
            until: Events before this are acknowledged; seconds since the epoch.
            at: Now.
            wall: Now.
            unreported: Thresholds that readings no longer report: nothing else would end them.
        """
        # If the clock was set back since, an event's wall time may be in the future; its monotonic age is always right.
        ended = {code for code, last in self._events.items() if min(last.wall, wall - (at - last.at)) <= until}
        for code in unreported:
            if code in self._reasons and self._reasons[code].since <= until:
                ended.add(code)
                self._counts.pop(code, None)
        return self._end(ended, wall)

    def restore(
        self,
        saved: HealthSnapshot,
        reported: float,
        at: float,
        wall: float,
        last: Mapping[str, float] = MappingProxyType({}),
    ) -> bool:
        """Restores what an earlier process saved. Returns whether the snapshot changed.

        Read faults last until reads contradict them, events until their rule ends them. Readings show crossed
        thresholds again, so of these only the time is restored.

        Args:
            saved: The health that it saved.
            reported: When it saved it, after all its events; seconds since the epoch.
            at: Now; an event's quiet time counts from here.
            wall: Now.
            last: By code: when the last event came, if that is known better; seconds since the epoch.
        """
        changed, was_healthy = False, not self.active_faults
        for reason in (*saved.reasons, *saved.warnings):
            if reason.code in ALL_THRESHOLDS:
                changed = self._restore_threshold(reason) or changed
            elif reason.code in READ_FAULTS:
                changed = self._restore_read_fault(reason) or changed
            else:
                came = min(last.get(reason.code, reported), wall)
                changed = self._restore_event(reason, _LastEvent(at, came, restored=True)) or changed
        if was_healthy and self.active_faults and saved.since is not None:
            self._since = saved.since
        return changed

    def _restore_threshold(self, reason: HealthReason) -> bool:
        current = self._reasons.get(reason.code)
        if current is None:
            self._restored_since[reason.code] = reason.since
            return False
        self._reasons[reason.code] = replace(current, since=min(current.since, reason.since))
        return True

    def _restore_read_fault(self, reason: HealthReason) -> bool:
        known = self._reasons.get(reason.code)
        if known is None:
            self._good = 0
            # Why there was no driver was not saved, so having it back proves no reset. The other faults need one.
            self._restored_reads.add(reason.code)
            return self._begin(reason)
        if reason.since >= known.since:
            return False
        self._reasons[reason.code] = replace(known, since=reason.since)
        return True

    def _restore_event(self, reason: HealthReason, last: _LastEvent) -> bool:
        self._events.setdefault(reason.code, last)
        self._unneeded_reads = 0
        if reason.code in self._reasons:
            return False
        self._good = 0
        return self._begin(reason)

    def inheritance(self) -> tuple[HealthSnapshot, dict[str, float]]:
        """Returns what devices at this device's bus address inherit, as `saved_state` does."""
        saved, last = self.saved_state()
        if self._reset_due and ReadFault.DEVICE_LOST not in self._reasons:
            saved = HealthSnapshot(HealthState.HEALTHY)  # the driver was reloaded, or the required reset was done
        return for_successor(saved), last

    def withdraw(self, codes: Iterable[str], wall: float) -> bool:
        """Ends restored faults, not seen since, that had ended before. Returns whether the snapshot changed."""
        restored = self._restored_reads | {code for code, last in self._events.items() if last.restored}
        return self._end([code for code in codes if code in restored], wall)

    def saved_state(self) -> tuple[HealthSnapshot, dict[str, float]]:
        """Returns the one-time faults, and by code when the last event came (seconds since the epoch)."""
        one_time = (self._reasons[code] for code in sorted(self._reasons) if is_one_time(code))
        reasons = tuple(reason for reason in one_time if reason.fault)
        state = HealthState.UNHEALTHY if reasons else HealthState.HEALTHY
        last = {code: last.wall for code, last in self._events.items() if self._reasons[code].fault}
        return HealthSnapshot(state, reasons, self._since if reasons else None), last

    def since(self, code: str) -> float | None:
        """Returns when an active fault or warning began, in seconds since the epoch; None if it is not active."""
        reason = self._reasons.get(code)
        return None if reason is None else reason.since

    @property
    def active_faults(self) -> frozenset[str]:
        return frozenset(code for code, reason in self._reasons.items() if reason.fault)

    def snapshot(self) -> HealthSnapshot:
        if not self._reasons:
            return HealthSnapshot(HealthState.HEALTHY, since=self._since)
        ordered = [self._reasons[code] for code in sorted(self._reasons)]
        faults = tuple(reason for reason in ordered if reason.fault)
        warnings = tuple(reason for reason in ordered if not reason.fault)
        return HealthSnapshot(HealthState.UNHEALTHY if faults else HealthState.HEALTHY, faults, self._since, warnings)

    def _begin(self, reason: HealthReason) -> bool:
        known = self._reasons.get(reason.code)
        if known is not None:
            # A new message (of the next XID) keeps the time at which the fault began, unless the clock was set back
            # since: a fault that begins in the future could not be acknowledged.
            reason = replace(reason, since=min(known.since, reason.since))
            if reason == known:
                return False
        elif reason.fault and not self.active_faults:
            self._since = reason.since
        self._reasons[reason.code] = reason
        return True

    def _end(self, codes: Iterable[str], wall: float) -> bool:
        before = bool(self.active_faults)
        ended = [code for code in codes if self._reasons.pop(code, None) is not None]
        for code in ended:
            self._events.pop(code, None)
            self._restored_reads.discard(code)
        if before and not self.active_faults:
            self._since = wall
        return bool(ended)
