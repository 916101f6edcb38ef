"""Begins and ends episodes of memory overuse, with hysteresis, so that usage around the promise is reported once.

    begins  more than promised is used in `BEGIN_CHECKS` checks in a row
    ends    at most the promise is used in `END_CHECKS` checks in a row, or the holder is gone

A check with unknown usage changes nothing. Nor does one with the same reading as the check before: processes are listed
no more often than usage is checked, so a peak that was read once must not count twice.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from gpufleet_agent.overuse.memory_usage import HolderKey, MemoryUsage

BEGIN_CHECKS = 2
END_CHECKS = 3


@dataclass(frozen=True, slots=True)
class OveruseEpisode:
    """A period in which a holder uses more memory than promised."""

    usage: MemoryUsage
    """As of the last check with known usage."""
    since: float
    """Seconds since the epoch."""

    @property
    def used_mib(self) -> int:
        """MiB of the device that the holder's processes use."""
        return self.usage.used_mib or 0


class OveruseEpisodes:
    def __init__(self) -> None:
        self._active: dict[HolderKey, OveruseEpisode] = {}
        self._streak: dict[HolderKey, int] = {}
        """Checks in a row that speak for a change."""
        self._last_reading: dict[HolderKey, object] = {}
        """The reading that was checked last."""

    @property
    def active(self) -> tuple[OveruseEpisode, ...]:
        """Current episodes, in order of device and pod."""
        return tuple(sorted(self._active.values(), key=lambda one: (one.usage.index, one.usage.key)))

    def check(
        self, usages: Iterable[MemoryUsage], wall: float
    ) -> tuple[tuple[OveruseEpisode, ...], tuple[OveruseEpisode, ...]]:
        """Returns the episodes that began and those that ended.

        Args:
            usages: Usage of every holder that was promised memory.
            wall: Now, in seconds since the epoch.
        """
        now = {usage.holder: usage for usage in usages}
        ended = [self._active.pop(key) for key in self._active.keys() - now.keys()]
        self._streak = {key: count for key, count in self._streak.items() if key in now}
        self._last_reading = {key: reading for key, reading in self._last_reading.items() if key in now}
        begun = []
        for key, usage in now.items():
            known_reading = usage.reading is not None and usage.reading is self._last_reading.get(key)
            if usage.used_mib is None or known_reading:
                continue
            self._last_reading[key] = usage.reading
            active = key in self._active
            over = usage.used_mib > usage.promised_mib
            self._streak[key] = self._streak.get(key, 0) + 1 if over is not active else 0
            if active:
                self._active[key] = replace(self._active[key], usage=usage)
                if self._streak[key] >= END_CHECKS:
                    ended.append(self._active.pop(key))
                    self._streak[key] = 0
            elif self._streak[key] >= BEGIN_CHECKS:
                self._active[key] = OveruseEpisode(usage, wall)
                self._streak[key] = 0
                begun.append(self._active[key])
        return tuple(begun), tuple(ended)
