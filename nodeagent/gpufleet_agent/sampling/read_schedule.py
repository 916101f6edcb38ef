"""Reads devices on a schedule, in the devices' own threads.

The threads keep the schedule themselves: passing each read from the event loop to a thread, and the result back, costs
as much time as the read. The first thread that wakes up reads all devices that are due, because a thread that wakes up
for one device needs three times as long: the processor's caches are cold. If something is still due a little later, the
event loop's tick wakes the second: a device whose call is stuck delays the rest by that time only. Where no event loop
does that, the second wakes up by itself. The others sleep for several intervals, unless a thread that begins to read
finds another one reading: then it wakes the next, because either may be stuck.
"""

import threading
import time
from collections.abc import Callable
from itertools import takewhile

from gpufleet_agent.runtime.aligned_ticks import seconds_to_next_tick
from gpufleet_agent.sampling.timing import Timing

_LATER = 0.2
"""Part of the interval after which the second thread reads devices that are still due."""
_LEAD = 0.1
"""Part of the interval by which devices are read before the event loop's ticks. At the same moment, the two threads
would wait for each other at each call of the driver, which releases the interpreter's lock."""
_SPARE = 60
"""Intervals for which the threads after the second sleep."""


class ScheduleGroup:
    """The schedules of devices that may be read by each other's threads. For use from any thread.

    Args:
        watched: Whether `wake_if_late` is called after each interval's reads. If not, the second thread wakes up by
            itself.
    """

    def __init__(self, *, watched: bool = False) -> None:
        self.watched = watched
        self._schedules: tuple[ReadSchedule, ...] = ()  # replaced, never changed: threads read it without a lock
        self._lock = threading.Lock()

    def add(self, schedule: "ReadSchedule") -> None:
        with self._lock:
            self._schedules = (*self._schedules, schedule)

    def remove(self, schedule: "ReadSchedule") -> None:
        with self._lock:
            self._schedules = tuple(other for other in self._schedules if other is not schedule)
        for other in self._schedules:
            other.wake()  # it may be the first or the second now

    def rank(self, schedule: "ReadSchedule") -> int:
        """Returns the number of idle threads before this one. An idle thread is not stuck."""
        before = takewhile(lambda other: other is not schedule, self._schedules)
        return sum(not other.reading for other in before)

    def wake_next(self, schedule: "ReadSchedule") -> None:
        """Wakes the next idle thread if another thread reads at the same time: that one may be stuck."""
        schedules = self._schedules
        if schedule in schedules and any(other.reading for other in schedules if other is not schedule):
            after = schedules[schedules.index(schedule) + 1 :]
            spare = next((other for other in after if not other.reading), None)
            if spare is not None:
                spare.wake()

    def wake_if_late(self) -> None:
        """Wakes an idle thread if a device is still due: the thread that should read it may be stuck."""
        schedules, now = self._schedules, time.monotonic()
        if any(schedule.is_due(now) for schedule in schedules):
            free = next((schedule for schedule in schedules if schedule.free), None)
            if free is not None:
                free.wake()

    def read_others(self, schedule: "ReadSchedule") -> None:
        """Reads the other devices that are due, until this schedule is stopped."""
        for other in self._schedules:
            if schedule.stopped:
                return
            if other is not schedule:
                other.read_if_due()


class ReadSchedule:
    """Calls `read` at each interval, preceded by `read_slow` when that is due.

    Args:
        read: Reads the device and records the result. An exception ends the schedule.
        read_slow: The same for values that are read less often.
        timing: The intervals.
        peers: The group that it belongs to, from now until `stop`.
        lock: Held while the device is called. Schedules of the same device share it, because a call of an earlier one
            may be stuck.
    """

    def __init__(
        self,
        read: Callable[[], None],
        read_slow: Callable[[], None],
        timing: Timing,
        peers: ScheduleGroup | None = None,
        lock: "threading.Lock | None" = None,
    ) -> None:
        self._read = read
        self._read_slow = read_slow
        self._timing = timing
        self._stopped = threading.Event()
        self._woken = threading.Event()
        self.reading = False
        """Whether its thread reads devices, or is stuck in one."""
        self._started = False
        self._lock = lock or threading.Lock()
        self._error: Exception | None = None
        now = time.monotonic()
        # From now on, not from when a thread reads it: an earlier call may be stuck.
        self._since: float | None = now
        self._slow_due = now
        self._due = now + seconds_to_next_tick(now + _LEAD * timing.sample, timing.sample) - timing.sample
        self._peers = peers or ScheduleGroup()
        self._peers.add(self)

    @property
    def in_call_since(self) -> float | None:
        """When the call in flight began, or became due, in monotonic seconds; None if there is none."""
        return self._since

    @property
    def free(self) -> bool:
        """Whether its thread waits. It may not have begun `run`, because an earlier call is stuck."""
        return self._started and not self.reading

    @property
    def stopped(self) -> bool:
        """Whether the result of the call in flight must be dropped."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Prevents further calls."""
        self._stopped.set()
        self.wake()
        self._peers.remove(self)

    def wake(self) -> None:
        """Wakes the thread, to read devices that are due."""
        self._woken.set()

    def run(self) -> None:
        """Reads until stopped. Runs in the device's thread, and returns only when that is in no call of any device.

        Raises:
            Exception: What a read of the device raised, in any thread.
        """
        self._started = True
        wait = 0.0
        while True:
            self._woken.wait(wait)
            self._woken.clear()  # before the check, because it is set after the change that it signals
            if self._stopped.is_set():
                break
            self.reading = True
            self._peers.wake_next(self)  # before a call that may never return
            self.read_if_due()
            self._peers.read_others(self)
            self.reading = False
            wait = self._seconds_to_wait(time.monotonic())
        if self._error is not None:
            raise self._error

    def _seconds_to_wait(self, now: float) -> float:
        # A device in a call remains due: its thread looks again at the next interval.
        due = self._due if self._due > now else next_due(self._due, now, self._timing.sample)
        rank = self._peers.rank(self)
        if rank == 0:
            return due - now
        return due - now + self._timing.sample * (_LATER if rank == 1 and not self._peers.watched else _SPARE)

    def is_due(self, now: float) -> bool:
        """Returns whether a read is due and not in progress, in monotonic seconds."""
        return self._due <= now and not self._lock.locked() and not self.stopped

    def read_if_due(self) -> None:
        """Reads the device, unless it is not due or in a call."""
        if self._due > time.monotonic() or not self._lock.acquire(blocking=False):
            return
        try:
            self._read_now()
        except Exception as error:  # noqa: BLE001 - raised by `run`, in the device's own thread
            self._error = error
            self._stopped.set()
            self.wake()
        finally:
            self._lock.release()

    def _read_now(self) -> None:
        """Reads the device. Must be called with the lock."""
        now = time.monotonic()
        if now < self._due or self._stopped.is_set():
            return  # another thread was faster
        if now >= self._slow_due:
            self._slow_due = now + self._timing.slow
            self._call(self._read_slow)
            if self._stopped.is_set():
                return
        self._call(self._read)
        self._due = next_due(self._due, time.monotonic(), self._timing.sample)

    def _call(self, read: Callable[[], None]) -> None:
        self._since = time.monotonic()
        try:
            read()
        finally:
            self._since = None


def next_due(due: float, now: float, interval: float) -> float:
    """Returns the first `due + k * interval` after `now`; missed reads are skipped."""
    if due + interval > now:
        return due + interval
    return now + interval - (now - due) % interval
