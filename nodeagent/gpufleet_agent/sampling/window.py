"""The recent past of one device, in a ring whose memory is taken once, and its aggregates, kept up to date.

A GPU's utilisation of this very second says little: the window's mean and 95th percentile are what a placement can
go by. Four quantities and a time per sample, eight bytes each, and each quantity once more in order of size, so that a
minute at one sample a second is 4.5 kB. What the aggregates cost doesn't depend on the window's length, as they are
asked for each second, on the event loop, and under the record's lock.
"""

from array import array
from bisect import bisect_left, insort
from collections.abc import Callable

from gpufleet_agent.devices.base import Sample
from gpufleet_agent.sampling.snapshot import Statistics, WindowStats

MAX_SAMPLES = 100_000
"""Most samples that a window may hold."""

_ABSENT = -(2**63)
"""Stands for `None` in the rings; no valid quantity is anywhere near it."""

_QUANTITIES: tuple[Callable[[Sample], int | None], ...] = (
    lambda sample: sample.utilization_percent,
    lambda sample: sample.memory_used_mib,
    lambda sample: sample.temperature_celsius,
    lambda sample: sample.power_milliwatts,
)


class _Series:
    """One quantity's values in order of time, and those that are present once more in order of size, with their sum."""

    __slots__ = ("_ordered", "_ring", "_total")

    def __init__(self, capacity: int) -> None:
        self._ring = array("q", bytes(8 * capacity))
        self._ordered = array("q")
        self._total = 0

    def put(self, slot: int, value: int | None) -> None:
        """Add a value. What the slot had is gone before: see `drop`."""
        if value is None:
            self._ring[slot] = _ABSENT
            return
        self._ring[slot] = value
        insort(self._ordered, value)
        self._total += value

    def drop(self, slot: int) -> None:
        """Forget a slot's value."""
        value = self._ring[slot]
        if value != _ABSENT:
            del self._ordered[bisect_left(self._ordered, value)]
            self._total -= value

    def clear(self) -> None:
        """Forget all values."""
        self._ordered = array("q")
        self._total = 0

    def aggregate(self) -> Statistics | None:
        """Aggregates of the values that are present; None when there are none."""
        present = len(self._ordered)
        if present == 0:
            return None
        rank = -(-95 * present // 100) - 1  # nearest rank: the ceiling of 95 % of n, from 1
        return Statistics(mean=self._total / present, max=self._ordered[-1], p95=self._ordered[rank])


class SampleWindow:
    """The samples of the last `seconds`, at most `capacity` of them. Not thread-safe: its owner locks."""

    __slots__ = ("_cached", "_capacity", "_count", "_first", "_seconds", "_series", "_times")

    def __init__(self, *, seconds: float, capacity: int) -> None:
        if seconds <= 0:
            raise ValueError(f"a window of {seconds} seconds holds nothing")
        if not 1 <= capacity <= MAX_SAMPLES:
            raise ValueError(f"a window holds 1 to {MAX_SAMPLES} samples, not {capacity}")
        self._seconds = seconds
        self._capacity = capacity
        self._times = array("d", bytes(8 * capacity))
        self._series = tuple(_Series(capacity) for _ in _QUANTITIES)
        self._first = 0
        self._count = 0
        self._cached: WindowStats | None = None

    def __len__(self) -> int:
        return self._count

    def append(self, sample: Sample, at: float) -> None:
        """Add a sample, in place of the oldest when full.

        Args:
            sample: The sample.
            at: Its time by a monotonic clock, in seconds; never before that of the sample added last.
        """
        self._drop_before(at - self._seconds)
        if self._count == self._capacity:
            self._drop_first()
        slot = (self._first + self._count) % self._capacity
        self._times[slot] = at
        for series, quantity in zip(self._series, _QUANTITIES, strict=True):
            series.put(slot, quantity(sample))
        self._count += 1
        self._cached = None

    def stats(self, now: float) -> WindowStats | None:
        """Aggregates of what is left in the window at `now`; None when that is nothing.

        In constant time but for samples that are too old by now, each of which is dropped once.
        """
        self._drop_before(now - self._seconds)
        if self._count == 0:
            return None
        if self._cached is None:
            first, last = self._times[self._first], self._times[self._slot_of_last()]
            self._cached = WindowStats(self._count, last - first, *(series.aggregate() for series in self._series))
        return self._cached

    def _drop_before(self, oldest: float) -> None:
        """Forget samples taken before `oldest`: one at a time, but all at once after a gap as long as the window."""
        if self._count and self._times[self._slot_of_last()] < oldest:
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

    def _slot_of_last(self) -> int:
        return (self._first + self._count - 1) % self._capacity
