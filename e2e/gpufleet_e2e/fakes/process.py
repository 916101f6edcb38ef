"""CPU and memory of a process from /proc, and its HTTP endpoints."""

import asyncio
import os
import statistics
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

MAX_SLOPE_SAMPLES = 300
"""Longer series are thinned: the number of pairs grows with the square."""


@dataclass(slots=True)
class ProcessSamples:
    """Samples of a process."""

    pid: int
    at: list[float] = field(default_factory=list)
    rss_mib: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    def take(self, now: float) -> None:
        """Takes a sample.

        Raises:
            OSError: The process has ended.
        """
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        times = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        self.at.append(now)
        self.rss_mib.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
        self.cpu_seconds.append((int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK"))

    def after(self, moment: float) -> "ProcessSamples":
        """Returns the samples from a moment on."""
        first = next(place for place, at in enumerate(self.at) if at >= moment)
        return ProcessSamples(self.pid, self.at[first:], self.rss_mib[first:], self.cpu_seconds[first:])

    @property
    def seconds(self) -> float:
        """Seconds from the first sample to the last."""
        return self.at[-1] - self.at[0]

    @property
    def cpu_percent(self) -> float:
        """CPU use in percent of one core."""
        return 100 * (self.cpu_seconds[-1] - self.cpu_seconds[0]) / self.seconds

    @property
    def slope_mib_per_hour(self) -> float:
        """Growth of the resident memory: the median slope between all pairs of samples (Theil-Sen).

        A step, as when code is loaded, does not count as growth.
        """
        every = -(-len(self.at) // MAX_SLOPE_SAMPLES)
        samples = list(zip(self.at[::every], self.rss_mib[::every], strict=True))
        return 3600 * statistics.median(
            (later - earlier) / (after - before) for (before, earlier), (after, later) in combinations(samples, 2)
        )

    def mean_mib(self, fraction: float) -> float:
        """Returns the mean resident memory of the first fraction of the samples; of the last when negative."""
        count = max(1, int(len(self.rss_mib) * abs(fraction)))
        return statistics.fmean(self.rss_mib[:count] if fraction > 0 else self.rss_mib[-count:])


def peak_mib(pid: int) -> float:
    """Returns the peak resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024


def thread_count(pid: int) -> int:
    """Returns the number of threads of a process."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def quantile(values: Sequence[float], fraction: float) -> float:
    """Returns a quantile by nearest rank, a value that occurred."""
    return sorted(values)[max(0, -(-int(fraction * 1000) * len(values) // 1000) - 1)]


def per_minute(times: Sequence[float], begin: float, end: float) -> float | None:
    """Returns the rate of events at these times, from the intervals between them.

    Counting events from `begin` to `end` would depend on chance: one per half minute gives 1 or 2 in 40 seconds. The
    last event before `begin` begins the first interval.

    Args:
        times: Times in seconds, sorted.
        begin: Begin of the period.
        end: End of the period.

    Returns:
        The rate, or None with less than two events.
    """
    first = max(0, bisect_right(times, begin) - 1)
    within = times[first : bisect_right(times, end)]
    if len(within) < 2:
        return None
    return 60 * (len(within) - 1) / (within[-1] - within[0])


async def scrape(port: int, path: str = "/metrics") -> tuple[float, int, bytes]:
    """Requests a path of 127.0.0.1; returns the duration in milliseconds, the status and the body."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: agent\r\n\r\n".encode())
    response = await reader.read()
    took = (time.perf_counter() - began) * 1000
    writer.close()
    await writer.wait_closed()
    head, _, body = response.partition(b"\r\n\r\n")
    return took, int(head.split()[1]), body
