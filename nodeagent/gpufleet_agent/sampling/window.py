"""The recent samples of one device in a ring of fixed size, with up-to-date statistics.

The momentary utilization of a GPU is noisy; placement uses the window's mean and 95th percentile. A sample takes
eight bytes for its time and for each of four quantities, and each quantity is also kept in sorted order: one minute at
one sample per second is 4.5 kB. The cost of the statistics does not depend on the window's length, because they are
read every second on the event loop, under the registry's lock.
"""

from array import array
from bisect import bisect_left, insort
from operator import attrgetter

from gpufleet_agent.devices.base import Sample
from gpufleet_agent.sampling.snapshot import Statistics, WindowSummary

MAX_SAMPLES = 100_000
"""Maximum capacity of a window."""

_ABSENT = -(2**63)
"""`None` in the rings; far below any valid quantity."""

_QUANTITIES = ("utilization_percent", "memory_used_mib", "temperature_celsius", "power_milliwatts")
_values = attrgetter(*_QUANTITIES)


class _Series:
    """One quantity's values in order of time; present ones also sorted, with their sum."""

    __slots__ = ("_ordered", "_ring", "_total")

    def __init__(self, capacity: int) -> None:
        self._ring = array("q", bytes(8 * capacity))
        self._ordered = array("q")
        self._total = 0

    def put(self, position: int, value: int | None) -> None:
        """Adds a value at a position that was dropped before."""
        if value is None:
            self._ring[position] = _ABSENT
            return
        self._ring[position] = value
        insort(self._ordered, value)
        self._total += value

    def drop(self, position: int) -> None:
        value = self._ring[position]
        if value != _ABSENT:
            del self._ordered[bisect_left(self._ordered, value)]
            self._total -= value

    def clear(self) -> None:
        self._ordered = array("q")
        self._total = 0

    def aggregate(self) -> Statistics | None:
        """Returns the statistics of the present values; None if there are none."""
        present = len(self._ordered)
        if present == 0:
            return None
        rank = -(-95 * present // 100) - 1  # nearest rank: the ceiling of 95 % of n, 1-based
        return Statistics(mean=self._total / present, max=self._ordered[-1], p95=self._ordered[rank])


class SampleWindow:
    """The samples of the last `seconds`, at most `capacity` of them. Not thread-safe: its owner locks."""

    __slots__ = ("_cached", "_capacity", "_count", "_first", "_seconds", "_series", "_times")

    def __init__(self, *, seconds: float, capacity: int) -> None:
        if seconds <= 0:
            raise ValueError(f"window: {seconds} s: must be greater than 0")
        if not 1 <= capacity <= MAX_SAMPLES:
            raise ValueError(f"capacity: {capacity}: must be between 1 and {MAX_SAMPLES}")
        self._seconds = seconds
        self._capacity = capacity
        self._times = array("d", bytes(8 * capacity))
        self._series = tuple(_Series(capacity) for _ in _QUANTITIES)
        self._first = 0
        self._count = 0
        self._cached: WindowSummary | None = None

    def __len__(self) -> int:
        return self._count

    def append(self, sample: Sample, at: float) -> None:
        """Adds a sample, and removes the oldest one if full.

        Args:
            sample: The sample.
            at: Its time in monotonic seconds; never before that of the previous sample.
        """
        self._drop_before(at - self._seconds)
        if self._count == self._capacity:
            self._drop_first()
        position = (self._first + self._count) % self._capacity
        self._times[position] = at
        for series, value in zip(self._series, _values(sample), strict=True):
            series.put(position, value)
        self._count += 1
        self._cached = None

    def stats(self, now: float) -> WindowSummary | None:
        """Returns the statistics of the window at `now`; None if it is empty.

        Takes constant time, except that each sample that is too old is dropped once.
        """
        self._drop_before(now - self._seconds)
        if self._count == 0:
            return None
        if self._cached is None:
            first, last = self._times[self._first], self._times[self._last_position()]
            self._cached = WindowSummary(self._count, last - first, *(series.aggregate() for series in self._series))
        return self._cached

    def _drop_before(self, oldest: float) -> None:
        """Drops samples taken before `oldest`: one at a time, or all together after a gap as long as the window."""
        if self._count and self._times[self._last_position()] < oldest:
            for series in self._series:
                series.clear()
            self._count = 0
            self._cached = None
        while self._count and self._times[self._first] < oldest:
            self._drop_first()

    def _drop_first(self) -> None:
        for series in self._series:
            series.drop(self._first)
        self._first = (self._first + 1) % self._capacity
        self._count -= 1
        self._cached = None

    def _last_position(self) -> int:
        return (self._first + self._count - 1) % self._capacity
