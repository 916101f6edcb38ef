"""Whether a device can be used, from what its reads and events say, in both directions.

    fault              stands after                            gone after
    DeviceLost         one read that says so                   `recover_reads` good reads in a row
    ResetRequired      one read that says so                   as DeviceLost
    DriverUnavailable  the driver stopped answering            as DeviceLost
    Unresponsive       one call longer than the deadline       as DeviceLost; the stuck call itself doesn't count
    ReadFailed         `fail_reads` other failures in a row    as DeviceLost
    XidError, or       one event that is a fault               1. the device came back from DeviceLost, ResetRequired
    another event                                                 or DriverUnavailable, so it has been reset; or
                                                               2. `quiet_seconds` without another such event, while
                                                                  reads are good

An event that is the application's own doing, and a sample refused as invalid, change nothing here: they are counted.
Several faults may stand at once, each with its own time; the device is healthy when none does.
"""

from dataclasses import dataclass
from enum import StrEnum

from gpufleet_agent.sampling.view import HealthReason, HealthState, HealthView


class Fault(StrEnum):
    """Faults that reads show. Events bring their own codes."""

    DEVICE_LOST = "DeviceLost"
    RESET_REQUIRED = "ResetRequired"
    DRIVER_UNAVAILABLE = "DriverUnavailable"
    UNRESPONSIVE = "Unresponsive"
    READ_FAILED = "ReadFailed"


_RESET = frozenset({Fault.DEVICE_LOST, Fault.RESET_REQUIRED, Fault.DRIVER_UNAVAILABLE})
"""A device that comes back from one of these went through a reset."""


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """How quickly a device falls from grace and how quickly it is trusted again."""

    recover_reads: int = 3
    """Good reads in a row that end a fault seen by reads."""
    fail_reads: int = 3
    """Failures of no special meaning in a row that make a fault."""
    quiet_seconds: float = 600.0
    """How long after its last event an event's fault stands."""

    def __post_init__(self) -> None:
        if self.recover_reads < 1 or self.fail_reads < 1 or self.quiet_seconds <= 0:
            raise ValueError("health: reads are counted from 1, and the quiet time is positive")


class Health:
    """One device's health. Times: `at` is monotonic seconds, `wall` seconds since the epoch. Its owner locks."""

    __slots__ = ("_events", "_failures", "_good", "_good_since", "_policy", "_reasons", "_since")

    def __init__(self, policy: HealthPolicy) -> None:
        self._policy = policy
        self._reasons: dict[str, HealthReason] = {}
        self._events: dict[str, float] = {}
        self._since: float | None = None
        self._good = 0
        self._good_since = 0.0
        self._failures = 0

    def good_read(self, at: float, wall: float) -> bool:
        """A read succeeded. True when that changed anything for a reader of `view`."""
        self._failures = 0
        if not self._reasons:
            return False
        if self._good == 0:
            self._good_since = at
        self._good += 1
        if self._good < self._policy.recover_reads:
            return False
        seen = frozenset(code for code in self._reasons if code not in self._events)
        gone = set(seen)
        for code, last in self._events.items():
            # An event after the first good read is about the device as it came back: the reset didn't cure it.
            was_reset = bool(seen & _RESET) and last <= self._good_since
            if was_reset or at - last >= self._policy.quiet_seconds:
                gone.add(code)
        for code in gone:
            del self._reasons[code]
            self._events.pop(code, None)
        if gone and not self._reasons:
            self._since = wall
        return bool(gone)

    def failed_read(self, fault: Fault, message: str, wall: float) -> bool:
        """A read failed, or is overdue. True when that changed anything."""
        self._good = 0
        if fault is Fault.READ_FAILED:
            self._failures += 1
            if self._failures < self._policy.fail_reads:
                return False
        return self._stand(fault, message, wall)

    def event(self, code: str, message: str, at: float, wall: float) -> bool:
        """The device reported a fault by itself. True when that changed anything."""
        self._events[code] = at
        return self._stand(code, message, wall)

    @property
    def standing(self) -> frozenset[str]:
        """Codes of the faults that stand."""
        return frozenset(self._reasons)

    def view(self) -> HealthView:
        """State and reasons, to hand out."""
        state = HealthState.UNHEALTHY if self._reasons else HealthState.HEALTHY
        return HealthView(state, tuple(self._reasons[code] for code in sorted(self._reasons)), self._since)

    def _stand(self, code: str, message: str, wall: float) -> bool:
        known = self._reasons.get(code)
        if known is not None and known.message == message:
            return False
        if not self._reasons:
            self._since = wall
        # A new message (the next XID's) keeps the time at which the fault began.
        self._reasons[str(code)] = HealthReason(str(code), message, wall if known is None else known.since)
        return True
