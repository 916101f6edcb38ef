"""One device's reads on their schedule, in the device's own thread.

The thread keeps the schedule by itself: handing each read over from the event loop, and its outcome back, takes as
much time as the read.
"""

import threading
import time
from collections.abc import Callable

from gpufleet_agent.runtime.aligned_ticks import seconds_to_next_tick
from gpufleet_agent.sampling.timing import Timing


class ReadSchedule:
    """Calls `read` again and again, and `read_slow` before it when that is due.

    Args:
        read: Reads the device and deals with what comes of it. What it raises ends the rounds.
        read_slow: The same of what is read more rarely.
        timing: How often.
    """

    def __init__(self, read: Callable[[], None], read_slow: Callable[[], None], timing: Timing) -> None:
        self._read = read
        self._read_slow = read_slow
        self._timing = timing
        self._stopped = threading.Event()
        # From now on, not from when the thread comes to it: a call that is stuck may be before it.
        self._since: float | None = time.monotonic()

    @property
    def in_call_since(self) -> float | None:
        """When the call that is in flight began, or became due, in monotonic seconds; None: there is none."""
        return self._since

    @property
    def stopped(self) -> bool:
        """Whether nobody wants to hear the outcome of the call that is in flight."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """No call begins any more."""
        self._stopped.set()

    def run(self) -> None:
        """Read until stopped. For the device's thread."""
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
    """The next time on the grid `due + k * interval` that lies after `now`: missed turns are skipped."""
    if due + interval > now:
        return due + interval
    return now + interval - (now - due) % interval
