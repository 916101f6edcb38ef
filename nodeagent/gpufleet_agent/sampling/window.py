"""The recent past of one device, in a ring whose memory is taken once.

A GPU's utilisation of this very second says little: the window's mean and 95th percentile are what a placement can
go by. Four quantities and a time per sample, eight bytes each, so that a minute at one sample a second is 2.4 kB.
"""

from array import array
from collections.abc import Callable

from gpufleet_agent.devices.base import Sample
from gpufleet_agent.sampling.view import Statistics, WindowStats

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


class Window:
    """The samples of the last `seconds`, at most `capacity` of them. Not thread-safe: its owner locks."""

    __slots__ = ("_cached", "_capacity", "_count", "_first", "_rings", "_seconds", "_times")

    def __init__(self, *, seconds: float, capacity: int) -> None:
        if seconds <= 0:
            raise ValueError(f"a window of {seconds} seconds holds nothing")
        if not 1 <= capacity <= MAX_SAMPLES:
            raise ValueError(f"a window holds 1 to {MAX_SAMPLES} samples, not {capacity}")
        self._seconds = seconds
        self._capacity = capacity
        self._times = array("d", bytes(8 * capacity))
        self._rings = tuple(array("q", bytes(8 * capacity)) for _ in _QUANTITIES)
        self._first = 0
        self._count = 0
        self._cached: WindowStats | None = None

    def __len__(self) -> int:
        return self._count

    def append(self, sample: Sample, at: float) -> None:
        """Add a sample in constant time, in place of the oldest when full.

        Args:
            sample: The sample.
            at: Its time by a monotonic clock, in seconds; never before that of the sample added last.
        """
        self._drop_before(at - self._seconds)
        if self._count == self._capacity:
            self._first = (self._first + 1) % self._capacity
            self._count -= 1
        slot = (self._first + self._count) % self._capacity
        self._times[slot] = at
        for ring, quantity in zip(self._rings, _QUANTITIES, strict=True):
            value = quantity(sample)
            ring[slot] = _ABSENT if value is None else value
        self._count += 1
        self._cached = None

    def stats(self, now: float) -> WindowStats | None:
        """Aggregates of what is left in the window at `now`; None when that is nothing.

        Computed once per change: asking again costs nothing.
        """
        self._drop_before(now - self._seconds)
        if self._count == 0:
            return None
        if self._cached is None:
            last = (self._first + self._count - 1) % self._capacity
            self._cached = WindowStats(
                self._count, self._times[last] - self._times[self._first], *(self._aggregate(r) for r in self._rings)
            )
        return self._cached

    def _drop_before(self, oldest: float) -> None:
        """Forget samples taken before `oldest`. Each is dropped once, so appending stays constant on average."""
        while self._count and self._times[self._first] < oldest:
            self._first = (self._first + 1) % self._capacity
            self._count -= 1
            self._cached = None

    def _aggregate(self, ring: "array[int]") -> Statistics | None:
        end = self._first + self._count
        if end <= self._capacity:
            values = sorted(ring[self._first : end])
        else:
            values = sorted(ring[self._first :] + ring[: end - self._capacity])
        # Absent values sort first: count them off instead of filtering.
        absent = values.count(_ABSENT)
        present = len(values) - absent
        if present == 0:
            return None
        rank = absent + -(-95 * present // 100) - 1  # nearest rank: the ceiling of 95 % of n, from 1
        total = sum(values) - absent * _ABSENT
        return Statistics(mean=total / present, max=values[-1], p95=values[rank])
