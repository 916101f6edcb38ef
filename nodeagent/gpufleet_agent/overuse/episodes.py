"""When over-use begins and when it is over: with hysteresis, so that one that flickers is told once.

    begins  used is more than promised in `BEGIN` looks in a row
    ends    used is at most what is promised in `END` looks in a row, or the holder is gone

A look at which nobody can tell what is used changes nothing, nor does one that finds the reading of the look before:
processes are listed no more often than one looks, so a peak that was read once must not count twice.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from gpufleet_agent.overuse.memory_usage import MemoryUsage

BEGIN = 2
END = 3


@dataclass(frozen=True, slots=True)
class OveruseEpisode:
    """An episode."""

    use: MemoryUsage
    """As of the last look that could tell."""
    since: float
    """Seconds since the epoch."""

    @property
    def used_mib(self) -> int:
        """MiB of the device that the holder's processes use."""
        return self.use.used_mib or 0


_Key = tuple[str, str]
"""Device and pod."""


class OveruseEpisodes:
    """Remembers who is over."""

    def __init__(self) -> None:
        self._standing: dict[_Key, OveruseEpisode] = {}
        self._streak: dict[_Key, int] = {}
        """Looks in a row that spoke for a change."""
        self._judged: dict[_Key, object] = {}
        """The reading that was judged last."""

    @property
    def standing(self) -> tuple[OveruseEpisode, ...]:
        """OveruseEpisodes that go on, in order of device and pod."""
        return tuple(sorted(self._standing.values(), key=lambda one: (one.use.index, one.use.key)))

    def look(
        self, uses: Iterable[MemoryUsage], wall: float
    ) -> tuple[tuple[OveruseEpisode, ...], tuple[OveruseEpisode, ...]]:
        """Take over what is used now; returns the episodes that began and those that ended.

        Args:
            uses: Every holder that was promised memory.
            wall: Now, in seconds since the epoch.
        """
        now = {(use.uuid, use.pod_uid): use for use in uses}
        ended = [self._standing.pop(key) for key in self._standing.keys() - now.keys()]
        self._streak = {key: count for key, count in self._streak.items() if key in now}
        self._judged = {key: reading for key, reading in self._judged.items() if key in now}
        begun = []
        for key, use in now.items():
            if use.used_mib is None or (use.reading is not None and use.reading is self._judged.get(key)):
                continue
            self._judged[key] = use.reading
            stands = key in self._standing
            over = use.used_mib > use.promised_mib
            self._streak[key] = self._streak.get(key, 0) + 1 if over is not stands else 0
            if stands:
                self._standing[key] = replace(self._standing[key], use=use)
                if self._streak[key] >= END:
                    ended.append(self._standing.pop(key))
                    self._streak[key] = 0
            elif self._streak[key] >= BEGIN:
                self._standing[key] = OveruseEpisode(use, wall)
                self._streak[key] = 0
                begun.append(self._standing[key])
        return tuple(begun), tuple(ended)
