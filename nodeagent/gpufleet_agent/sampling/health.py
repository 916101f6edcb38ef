"""Whether a device can be used, from what its reads, its events and its readings say, in both directions.

Unhealthy means a fault and nothing else. Each fault has its own rule (the table is in docs/concepts/health.md,
and a test holds the two together):

    reads     DeviceLost, ResetRequired, DriverUnavailable and Unresponsive stand after one read that says so,
              ReadFailed after `fail_reads` other failures in a row, of reads or of slow reads, each counted by
              themselves. Gone after `recover_reads` good reads in a row, once slow reads succeed, too.
    events    Stand after one event. Gone when the device has been reset: it came back from DeviceLost or
              ResetRequired, or from DriverUnavailable when the driver itself said that it wasn't loaded. Or when
              somebody acknowledged them. Or, unless they need a reset, after `quiet_seconds` without another while
              reads are good.
    readings  See `levels`: each for as long as readings show it. Some are warnings: told, and no fault.

An event that is the application's own doing, and a sample refused as invalid, change nothing here: they are counted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from gpufleet_agent.devices.base import DeviceEvent, Recovery
from gpufleet_agent.sampling.snapshot import HealthReason, HealthSnapshot, HealthState
from gpufleet_agent.sampling.thresholds import THRESHOLDS, Observation


class ReadFault(StrEnum):
    """Faults that reads show."""

    DEVICE_LOST = "DeviceLost"
    RESET_REQUIRED = "ResetRequired"
    DRIVER_UNAVAILABLE = "DriverUnavailable"
    UNRESPONSIVE = "Unresponsive"
    READ_FAILED = "ReadFailed"


READ_FAULTS = frozenset(fault.value for fault in ReadFault)

_RESET = frozenset({ReadFault.DEVICE_LOST.value, ReadFault.RESET_REQUIRED.value, ReadFault.DRIVER_UNAVAILABLE.value})
"""A device that comes back from one of these went through a reset, where it is sure that it was this one."""

_NEEDS_RESET = frozenset({ReadFault.DEVICE_LOST, ReadFault.RESET_REQUIRED})


def is_one_time(code: str) -> bool:
    """Whether the hardware may not tell this fault again to a process that starts later.

    Events are told once. A device that was lost may not be listed any more, and one that needed a reset may have got
    it: coming back is what ends its events.
    """
    return code not in THRESHOLDS and (code not in READ_FAULTS or code in _NEEDS_RESET)


def for_successor(health: HealthSnapshot) -> HealthSnapshot:
    """What others inherit that are in a device's place: all but that it is gone.

    They are there, so it was divided otherwise or exchanged. That is no coming back, so it proves no reset.
    """
    reasons = tuple(reason for reason in health.reasons if reason.code != ReadFault.DEVICE_LOST)
    state = HealthState.UNHEALTHY if reasons else HealthState.HEALTHY
    return replace(health, state=state, reasons=reasons)


_STRENGTH = (Recovery.AUTOMATIC, Recovery.RESET, Recovery.REPLACEMENT)


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """How quickly a device falls from grace and how quickly it is trusted again."""

    recover_reads: int = 3
    """Good reads in a row that end a fault seen by reads."""
    fail_reads: int = 3
    """Failures of no special meaning in a row that make a fault."""
    quiet_seconds: float = 600.0
    """How long after its last event an event's fault stands that needs no reset."""

    def __post_init__(self) -> None:
        if self.recover_reads < 1 or self.fail_reads < 1 or self.quiet_seconds <= 0:
            raise ValueError("health: reads are counted from 1, and the quiet time is positive")


@dataclass(frozen=True, slots=True)
class _Last:
    """The last event of a kind, by both clocks."""

    at: float
    wall: float
    taken_over: bool = False
    """An earlier process saw it, and this one hasn't."""


class DeviceHealth:
    """One device's health. Times: `at` is monotonic seconds, `wall` seconds since the epoch. Its owner locks."""

    __slots__ = (
        "_counts",
        "_events",
        "_failures",
        "_good",
        "_good_since",
        "_inherited",
        "_policy",
        "_reasons",
        "_reset_due",
        "_since",
        "_slow_failures",
        "_told",
    )

    def __init__(self, policy: HealthPolicy) -> None:
        self._policy = policy
        self._reasons: dict[str, HealthReason] = {}
        """Faults and warnings that stand, by code."""
        self._events: dict[str, _Last] = {}
        self._counts: dict[str, int] = {}
        """By level: readings in a row that contradict what is held of it."""
        self._told: dict[str, float] = {}
        """Since when an earlier process held a level to stand."""
        self._inherited: set[str] = set()
        """Faults that only an earlier process saw by reads; until a read of ours shows them, or they are gone."""
        self._since: float | None = None
        self._good = 0
        self._good_since = 0.0
        self._reset_due = False
        """A device that comes back now went through a reset."""
        self._failures = 0
        self._slow_failures = 0
        """Of slow reads, in a row: good reads in between are no answer to these."""

    def good_read(self, at: float, wall: float) -> bool:
        """A read succeeded. True when that changed anything for a reader of `snapshot`."""
        self._failures = 0
        seen = frozenset(code for code in self._reasons if code in READ_FAULTS)
        if self._slow_failures >= self._policy.fail_reads:
            seen -= {ReadFault.READ_FAILED.value}
        if not seen and not self._events:
            self._good = 0
            return False
        if self._good == 0:
            self._good_since = at
        self._good += 1
        if self._good < self._policy.recover_reads:
            return False
        gone = set(seen)
        reset_due = self._reset_due or not _NEEDS_RESET.isdisjoint(self._inherited)
        for code, last in self._events.items():
            # An event after the first good read is about the device as it came back: the reset didn't cure it.
            was_reset = reset_due and last.at <= self._good_since
            by_itself = self._reasons[code].recovery is Recovery.AUTOMATIC
            if was_reset or (by_itself and at - last.at >= self._policy.quiet_seconds):
                gone.add(code)
        self._reset_due = False
        return self._remove(gone, wall)

    def good_slow_read(self) -> None:
        """A slow read succeeded. Good reads end the fault, if its failing was one."""
        self._slow_failures = 0

    def failed_read(
        self, fault: ReadFault, message: str, wall: float, *, sure: bool = True, slow: bool = False
    ) -> bool:
        """A read failed, or is overdue. True when that changed anything.

        Args:
            fault: What it showed.
            message: The same in words.
            wall: Now.
            sure: False when it may be another fault, so that coming back from it proves no reset.
            slow: It was a slow read. Those that fail by themselves are counted by themselves.
        """
        if fault is ReadFault.READ_FAILED and slow:
            self._slow_failures += 1
            if self._slow_failures < self._policy.fail_reads:
                return False
        else:
            self._good = 0
        self._reset_due = self._reset_due or (sure and fault in _RESET) or fault in _NEEDS_RESET & self._inherited
        self._inherited.discard(fault)
        if fault is ReadFault.READ_FAILED and not slow:
            self._failures += 1
            if self._failures < self._policy.fail_reads:
                return False
        recovery = Recovery.RESET if fault in _NEEDS_RESET else Recovery.AUTOMATIC
        return self._stand(HealthReason(fault.value, message, wall, recovery))

    def event(self, event: DeviceEvent, at: float, wall: float) -> bool:
        """The device reported a fault by itself. True when that changed anything."""
        self._events[event.kind] = _Last(at, wall)
        known = self._reasons.get(event.kind)
        if known is not None and _STRENGTH.index(known.recovery) > _STRENGTH.index(event.recovery):
            return False  # what needs a reset is not talked away by what doesn't
        return self._stand(HealthReason(event.kind, event.message, wall, event.recovery))

    def shown(self, shown: Iterable[Observation], wall: float) -> bool:
        """Readings showed or denied some levels. True when that changed anything."""
        changed = False
        for level, count in shown:
            stands = level.code in self._reasons
            if stands == bool(count):
                self._counts.pop(level.code, None)
                if not stands:
                    self._told.pop(level.code, None)
                    continue
            else:
                seen = self._counts[level.code] = self._counts.get(level.code, 0) + 1
                if seen < (level.fall if stands else level.rise):
                    continue
                del self._counts[level.code]
            if count:
                since = self._told.pop(level.code, wall)
                message = level.message.format(count=count)
                reason = HealthReason(level.code, message, since, level.recovery, fault=level.fault)
                changed = self._stand(reason) or changed
            else:
                changed = self._remove({level.code}, wall) or changed
        return changed

    def acknowledge(self, until: float, at: float, wall: float, untold: Iterable[str] = ()) -> bool:
        """Somebody vouches for the device as of `until`. True when anything was forgiven.

        Args:
            until: Events before that are forgiven; seconds since the epoch.
            at: Now.
            wall: Now.
            untold: Levels that readings say nothing about any more: nothing else would ever end them.
        """
        # Of an event whose time lies ahead, as the clock was set back since, the other clock knows how long ago it was.
        gone = {code for code, last in self._events.items() if min(last.wall, wall - (at - last.at)) <= until}
        for code in untold:
            if code in self._reasons and self._reasons[code].since <= until:
                gone.add(code)
                self._counts.pop(code, None)
        return self._remove(gone, wall)

    def restore(
        self,
        past: HealthSnapshot,
        reported: float,
        at: float,
        wall: float,
        last: Mapping[str, float] = MappingProxyType({}),
    ) -> bool:
        """Take over what an earlier process held of the device. True when that changed anything.

        Faults that reads show stand until reads deny them, events until what ends them. What readings show they show
        again: of that only the time is kept.

        Args:
            past: What it held.
            reported: When it said so, which events of that process came before; seconds since the epoch.
            at: Now; from here on an event's quiet time counts.
            wall: Now.
            last: By code: when an event came last, where that is known better; seconds since the epoch.
        """
        changed, was_healthy = False, not self.standing
        for reason in (*past.reasons, *past.warnings):
            if reason.code in THRESHOLDS:
                current = self._reasons.get(reason.code)
                if current is None:
                    self._told[reason.code] = reason.since
                else:
                    self._reasons[reason.code] = replace(current, since=min(current.since, reason.since))
                    changed = True
                continue
            if reason.code not in READ_FAULTS:
                came = min(last.get(reason.code, reported), wall)
                self._events.setdefault(reason.code, _Last(at, came, taken_over=True))
            known = self._reasons.get(reason.code)
            if known is not None and reason.code in READ_FAULTS and reason.since < known.since:
                self._reasons[reason.code] = replace(known, since=reason.since)
                changed = True
            elif known is None:
                self._good = 0
                # Why there was no driver is not told: having it back proves no reset. The other two need one.
                if reason.code in READ_FAULTS:
                    self._inherited.add(reason.code)
                changed = self._stand(reason) or changed
        if was_healthy and self.standing and past.since is not None:
            self._since = past.since
        return changed

    def bequest(self) -> tuple[HealthSnapshot, dict[str, float]]:
        """What is remembered of it by those that are in its place."""
        snapshot, last = self.saved_state()
        if self._reset_due and ReadFault.DEVICE_LOST not in self._reasons:
            snapshot = HealthSnapshot(
                HealthState.HEALTHY
            )  # the driver was loaded anew, or the reset done that it had asked for
        return for_successor(snapshot), last

    def withdraw(self, codes: Iterable[str], wall: float) -> bool:
        """What was taken over, and not seen since, turns out to have ended before. True when that changed anything."""
        taken_over = self._inherited | {code for code, last in self._events.items() if last.taken_over}
        return self._remove([code for code in codes if code in taken_over], wall)

    def saved_state(self) -> tuple[HealthSnapshot, dict[str, float]]:
        """What a later process may not hear again, and by code when each event came last (seconds since the epoch)."""
        reasons = tuple(self._reasons[code] for code in sorted(self._reasons) if is_one_time(code))
        state = HealthState.UNHEALTHY if reasons else HealthState.HEALTHY
        last = {code: last.wall for code, last in self._events.items()}
        return HealthSnapshot(state, reasons, self._since if reasons else None), last

    def since(self, code: str) -> float | None:
        """Since when a fault or warning stands, in seconds since the epoch; None: it doesn't."""
        reason = self._reasons.get(code)
        return None if reason is None else reason.since

    @property
    def standing(self) -> frozenset[str]:
        """Codes of the faults that stand."""
        return frozenset(code for code, reason in self._reasons.items() if reason.fault)

    def snapshot(self) -> HealthSnapshot:
        """State, reasons and warnings, to hand out."""
        if not self._reasons:
            return HealthSnapshot(HealthState.HEALTHY, since=self._since)
        ordered = [self._reasons[code] for code in sorted(self._reasons)]
        faults = tuple(reason for reason in ordered if reason.fault)
        warnings = tuple(reason for reason in ordered if not reason.fault)
        return HealthSnapshot(HealthState.UNHEALTHY if faults else HealthState.HEALTHY, faults, self._since, warnings)

    def _stand(self, reason: HealthReason) -> bool:
        known = self._reasons.get(reason.code)
        if known is not None:
            # A new message (the next XID's) keeps the time at which the fault began, unless the clock was set back
            # since: nobody could acknowledge what is yet to begin.
            reason = replace(reason, since=min(known.since, reason.since))
            if reason == known:
                return False
        elif reason.fault and not self.standing:
            self._since = reason.since
        self._reasons[reason.code] = reason
        return True

    def _remove(self, codes: Iterable[str], wall: float) -> bool:
        before = bool(self.standing)
        gone = [code for code in codes if self._reasons.pop(code, None) is not None]
        for code in gone:
            self._events.pop(code, None)
            self._inherited.discard(code)
        if before and not self.standing:
            self._since = wall
        return bool(gone)
