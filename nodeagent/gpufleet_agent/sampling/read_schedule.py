"""Reads one device on a schedule, in the device's own thread.

The thread keeps the schedule itself: passing each read from the event loop to the thread, and the result back, costs as
much time as the read.
"""

import threading
import time
from collections.abc import Callable

from gpufleet_agent.runtime.aligned_ticks import seconds_to_next_tick
from gpufleet_agent.sampling.timing import Timing


class ReadSchedule:
    """Calls `read` at each interval, preceded by `read_slow` when that is due.

    Args:
        read: Reads the device and records the result. An exception ends the schedule.
        read_slow: The same for values that are read less often.
        timing: The intervals.
    """

    def __init__(self, read: Callable[[], None], read_slow: Callable[[], None], timing: Timing) -> None:
        self._read = read
        self._read_slow = read_slow
        self._timing = timing
        self._stopped = threading.Event()
        # From now on, not from when the thread begins: it may first have to finish a stuck call.
        self._since: float | None = time.monotonic()

    @property
    def in_call_since(self) -> float | None:
        """When the call in flight began, or became due, in monotonic seconds; None if there is none."""
        return self._since

    @property
    def stopped(self) -> bool:
        """Whether the result of the call in flight must be dropped."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Prevents further calls."""
        self._stopped.set()

    def run(self) -> None:
        """Reads until stopped. Runs in the device's thread."""
        slow_due = now = time.monotonic()
        due = now + seconds_to_next_tick(now, self._timing.sample) - self._timing.sample
        wait = 0.0
        while not self._stopped.wait(wait):
            now = time.monotonic()
            if now >= slow_due:
                slow_due = now + self._timing.slow
                self._call(self._read_slow)
                if self._stopped.is_set():
                    return
            self._call(self._read)
            now = time.monotonic()
            due = next_due(due, now, self._timing.sample)
            wait = due - now

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
