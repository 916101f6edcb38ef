"""What a process costs, as the kernel counts it, and what it answers over HTTP."""

import asyncio
import os
import statistics
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

SLOPE_LOOKS = 300
"""Of a longer course every second, third, ... look: the number of pairs grows with the square."""


@dataclass(slots=True)
class ProcessSamples:
    """A process, looked at again and again."""

    pid: int
    at: list[float] = field(default_factory=list)
    rss_mib: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    def look(self, now: float) -> None:
        """Take down what the kernel counts now.

        Raises:
            OSError: The process is gone.
        """
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        times = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        self.at.append(now)
        self.rss_mib.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
        self.cpu_seconds.append((int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK"))

    def after(self, moment: float) -> "ProcessSamples":
        """The part from a moment on."""
        first = next(place for place, at in enumerate(self.at) if at >= moment)
        return ProcessSamples(self.pid, self.at[first:], self.rss_mib[first:], self.cpu_seconds[first:])

    @property
    def seconds(self) -> float:
        """From the first look to the last."""
        return self.at[-1] - self.at[0]

    @property
    def cpu_percent(self) -> float:
        """Of one core."""
        return 100 * (self.cpu_seconds[-1] - self.cpu_seconds[0]) / self.seconds

    @property
    def slope_mib_per_hour(self) -> float:
        """Growth of the resident memory: the median of the slopes between all pairs of looks (Theil and Sen).

        A step, as when code is loaded, counts as one and not as growth.
        """
        every = -(-len(self.at) // SLOPE_LOOKS)
        looks = list(zip(self.at[::every], self.rss_mib[::every], strict=True))
        return 3600 * statistics.median(
            (later - earlier) / (after - before) for (before, earlier), (after, later) in combinations(looks, 2)
        )

    def mean_mib(self, share: float) -> float:
        """Mean resident memory over the first share of the course; over the last when negative."""
        count = max(1, int(len(self.rss_mib) * abs(share)))
        return statistics.fmean(self.rss_mib[:count] if share > 0 else self.rss_mib[-count:])


def peak_mib(pid: int) -> float:
    """The largest resident memory that a process ever had."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024


def thread_count(pid: int) -> int:
    """How many threads a process has."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def quantile(values: Sequence[float], share: float) -> float:
    """Nearest rank: a value that occurred."""
    return sorted(values)[max(0, -(-int(share * 1000) * len(values) // 1000) - 1)]


def per_minute(times: Sequence[float], begin: float, end: float) -> float | None:
    """How often something happens that happened at these times, by the time between one and the next.

    Not by counting those from `begin` to `end`: one a half minute gives 1 or 2 in 40 seconds, by chance. The last one
    before `begin` begins the first interval.

    Args:
        times: In order, in seconds.
        begin: What came before is no part of it.
        end: Likewise, after.

    Returns:
        None: There aren't two of them, so nothing can be said.
    """
    first = max(0, bisect_right(times, begin) - 1)
    within = times[first : bisect_right(times, end)]
    if len(within) < 2:
        return None
    return 60 * (len(within) - 1) / (within[-1] - within[0])


async def scrape(port: int, path: str = "/metrics") -> tuple[float, int, bytes]:
    """Milliseconds that an answer of 127.0.0.1 took, its status and its body."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: agent\r\n\r\n".encode())
    answer = await reader.read()
    took = (time.perf_counter() - began) * 1000
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return took, int(head.split()[1]), body
