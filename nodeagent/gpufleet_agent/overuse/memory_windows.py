"""Keeps the recent memory use of each holder of a shared device: current value, maximum, and start of observation.

The maximum is kept by intervals of `BUCKET_SECONDS`, so that a holder takes a few hundred bytes however often it is
checked. It covers the last `WINDOW_SECONDS` and up to one interval more.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gpufleet_agent.overuse.memory_usage import HolderKey, MemoryUsage

WINDOW_SECONDS = 600.0
BUCKET_SECONDS = 30.0
GAP_SECONDS = 60.0
"""Time without a known value after which the observation of a holder begins again."""


@dataclass(frozen=True, slots=True)
class ObservedMemory:
    """Memory of a device that a holder uses, in MiB."""

    used_mib: int
    max_mib: int
    """Maximum over the window."""
    since: float
    """Start of the observation, in seconds since the epoch."""


class _Window:
    __slots__ = ("last_at", "maxima", "since", "used_mib")

    def __init__(self, since: float) -> None:
        self.since = since
        self.maxima: dict[int, int] = {}
        """By number of the interval."""
        self.used_mib = 0
        self.last_at = 0.0

    def add(self, used_mib: int, now: float) -> None:
        interval, oldest = int(now // BUCKET_SECONDS), int((now - WINDOW_SECONDS) // BUCKET_SECONDS)
        self.maxima = {number: most for number, most in self.maxima.items() if number >= oldest}
        self.maxima[interval] = max(used_mib, self.maxima.get(interval, 0))
        self.used_mib, self.last_at = used_mib, now


class MemoryWindows:
    """The windows of all holders with a promise."""

    def __init__(self) -> None:
        self._windows: dict[HolderKey, _Window] = {}

    def record(self, usages: Iterable[MemoryUsage], *, now: float, wall: float) -> None:
        """Adds one check of all holders; one that is missing has ended.

        Args:
            usages: Usage of every holder that was promised memory.
            now: Monotonic time, in seconds.
            wall: The same time, in seconds since the epoch.
        """
        kept: dict[HolderKey, _Window] = {}
        for usage in usages:
            window = self._windows.get(usage.holder)
            if window is not None and now - window.last_at > GAP_SECONDS:
                window = None
            if usage.used_mib is not None:
                window = window or _Window(wall)
                window.add(usage.used_mib, now)
            if window is not None:
                kept[usage.holder] = window
        self._windows = kept

    def observed(self) -> Mapping[HolderKey, ObservedMemory]:
        """Returns the holders with a known use, as of the last check."""
        return {
            key: ObservedMemory(window.used_mib, max(window.maxima.values()), window.since)
            for key, window in self._windows.items()
        }
