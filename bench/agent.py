"""What the agent costs a node: the real process on eight simulated GPUs, for ten minutes.

    python bench/agent.py [--seconds 600] [--json]

A run of two minutes tells everything but growth: code that runs rarely, and was given back, returns within ten.

The command `gpufleet-agent` runs as users run it; what it talks to are stand-ins on real sockets of this process: an
apiserver (HTTPS), a kubelet, and our own libnvidia-ml.so.1. All devices are held and busy, with readings that flicker
within the dead band, are sampled each second and scraped each 15 s. Memory and CPU are those that the kernel counts
for the agent's process; the first minute (a third of a shorter run) is left out of all but `rss_peak_mib`.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from gpufleet_agent.devices.base import Sample
from gpufleet_agent.sampling.window import SampleWindow
from gpufleet_e2e.fakes.node import running
from gpufleet_e2e.fakes.process import ProcessSamples, peak_mib, per_minute, quantile, thread_count
from gpufleet_simgpu.build import build_library
from gpufleet_simgpu.files import STATE, write_state
from gpufleet_simgpu.model import SimGpu, SimProcess, SimSeries
from gpufleet_simgpu.presets import busy, make_node

NODE = "bench"
GPUS = 8
WARM_UP_SECONDS = 60.0
GROWTH_SECONDS = 600.0
"""Code that the agent let go of comes back for minutes, whenever it runs for the first time since: no growth."""
ENOUGH_SECONDS = 60.0
"""In these there is a heartbeat, at the latest 33 s after the one before, whose distance is known."""
EXTRA_SCRAPES = 100
"""Made after the measurement, one right after the other: forty scrapes have no 99th percentile."""
IMPORTS = 7
LIMITS = {
    "rss_mib": 60.0,
    "rss_peak_mib": 60.0,
    "cpu_percent": 1.0,
    "writes_per_minute": 2.0,
    "scrape_ms_p99": 100.0,
    "import_s": 0.7,
}
GROWTH_LIMITS = {"rss_slope_mib_per_hour": 12.0, "rss_slope_late_mib_per_hour": 6.0}
"""Of a run that is long enough to tell: 2 MiB in its ten minutes, and half a MiB in the second five."""
FLAT = Sample(
    uuid="",
    taken_at=0,
    utilization_percent=90,
    memory_used_mib=60_000,
    temperature_celsius=64,
    power_milliwatts=500_000,
)
_IMPORT = "from time import perf_counter as t; b = t(); import gpufleet_agent.main; print(t() - b)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came out. The names are those of the JSON output."""

    seconds: float
    rss_mib: float
    """Largest of all seconds after the warm-up."""
    rss_peak_mib: float
    """As the kernel has it: the largest since the process began."""
    rss_start_mib: float
    """Mean of the first tenth after the warm-up."""
    rss_end_mib: float
    """Mean of the last tenth."""
    rss_slope_mib_per_hour: float
    """Theil and Sen's over the seconds after the warm-up. Of a run under `GROWTH_SECONDS` it is that of the start."""
    rss_slope_late_mib_per_hour: float
    """The same of the second half: rarely run code has come back by then, see `gpufleet_agent.runtime.trim_memory`."""
    cpu_percent: float
    """Of one core."""
    writes_per_minute: float | None
    """By the time between two; None: too short a run to tell."""
    written_bytes: float
    """Mean size of a write of the status."""
    scrape_ms_p50: float
    scrape_ms_p99: float
    scrape_bytes: int
    import_s: float
    """Fastest of some fresh processes: what else the machine does can only add to it."""
    window_bytes_per_device: int
    threads: int
    load_average: float
    """Of the machine, at the end."""


def gpus(folder: Path, rng: random.Random) -> None:
    """Eight busy GPUs whose readings flicker within the agent's dead band, as a steady training does."""
    node = make_node("h100", GPUS, node=NODE)
    write_state(folder / STATE, replace(node, gpus=tuple(flickering(folder, gpu, rng) for gpu in node.gpus)))


def flickering(folder: Path, gpu: SimGpu, rng: random.Random) -> SimGpu:
    """One of them, with a series of five minutes."""
    name = f"{gpu.minor}.series"
    loaded = busy(gpu, load=90, memory_mib=60_000, temperature_celsius=64)
    watts = loaded.power_milliwatts or 0
    lines = (
        f"{second} utilization_percent={90 + rng.randint(-4, 4)} temperature_celsius={64 + rng.randint(-1, 1)} "
        f"power_milliwatts={watts + rng.randint(-9000, 9000)} memory_used_mib={60_000 + rng.randint(-60, 60)}\n"
        for second in range(300)
    )
    (folder / name).write_text("".join(lines), encoding="ascii")
    process = SimProcess(pid=4_000_000 + (gpu.minor or 0), memory_mib=59_000)
    return replace(loaded, processes=(process,), series=SimSeries(name, time.time()))


async def import_seconds() -> float:
    """Least time that a fresh process takes to import the agent."""
    times = []
    for _ in range(IMPORTS):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", _IMPORT, stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        times.append(float(out))
    return min(times)


def window_bytes() -> int:
    """Memory of one device's window of a minute, filled, with all that hangs on it; in bytes."""
    count = 100
    full = range(200)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    windows = [SampleWindow(seconds=60, capacity=62) for _ in range(count)]
    for window in windows:
        for second in full:
            window.append(FLAT, float(second))
        window.stats(full[-1])
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return round((after - before) / count)


async def measure(seconds: float, console: Console) -> Found:
    """Everything."""
    imported, per_window = await import_seconds(), window_bytes()
    uuids = [gpu.uuid for gpu in make_node("h100", GPUS, node=NODE).gpus]
    with tempfile.TemporaryDirectory(prefix="gf") as name, Progress(console=console, transient=True) as progress:
        folder = Path(name)
        build_library(folder)
        gpus(folder, random.Random(6))
        async with running(folder, NODE, uuids, {"LD_LIBRARY_PATH": name}, "--sample-seconds=1") as node:
            task = progress.add_task("measuring", total=seconds)

            def told(passed: float, course: ProcessSamples) -> None:
                progress.update(task, completed=passed, description=f"measuring: {course.rss_mib[-1]:.1f} MiB")

            warm_up = min(WARM_UP_SECONDS, seconds / 3)
            course = await node.follow(seconds, told)
            writes = tuple(node.server.written_at)
            peak, threads = peak_mib(node.process.pid), thread_count(node.process.pid)
            for _ in range(EXTRA_SCRAPES):
                await node.scrape()
    steady, late = course.after(course.at[0] + warm_up), course.after(course.at[0] + course.seconds / 2)
    rate = per_minute(writes, steady.at[0], steady.at[-1])
    return Found(
        seconds=round(course.seconds, 1),
        rss_mib=round(max(steady.rss_mib), 2),
        rss_peak_mib=round(peak, 2),
        rss_start_mib=round(steady.mean_mib(0.1), 2),
        rss_end_mib=round(steady.mean_mib(-0.1), 2),
        rss_slope_mib_per_hour=round(steady.slope_mib_per_hour, 2),
        rss_slope_late_mib_per_hour=round(late.slope_mib_per_hour, 2),
        cpu_percent=round(steady.cpu_percent, 3),
        writes_per_minute=None if rate is None else round(rate, 2),
        written_bytes=round(node.server.written_bytes / max(1, node.server.written)),
        scrape_ms_p50=round(quantile(node.scrapes, 0.5), 2),
        scrape_ms_p99=round(quantile(node.scrapes, 0.99), 2),
        scrape_bytes=len(node.page),
        import_s=round(imported, 3),
        window_bytes_per_device=per_window,
        threads=threads,
        load_average=round(os.getloadavg()[0], 2),
    )


def limits(seconds: float) -> Mapping[str, float]:
    """What may not be passed in a run of that length."""
    # A run of 600 s is measured as a second more or less.
    return LIMITS | GROWTH_LIMITS if round(seconds, -1) >= GROWTH_SECONDS else LIMITS


def show(found: Found, console: Console) -> None:
    """For people."""
    table = Table(title=f"the agent with {GPUS} GPUs over {found.seconds:g} s")
    table.add_column("")
    table.add_column("measured", justify="right")
    table.add_column("limit", justify="right")
    for name, value in asdict(found).items():
        limit = limits(found.seconds).get(name)
        style = "red" if limit is not None and value is not None and value > limit else ""
        shown = "too short a run" if value is None else f"{value:g}"
        table.add_row(name, shown, "" if limit is None else f"{limit:g}", style=style)
    console.print(table)


def over(found: Mapping[str, float | None], seconds: float) -> list[str]:
    """What is over its limit in a run of that length, in words."""
    return [
        f"{name} is {value:g}, more than {limit:g}"
        for name, limit in limits(seconds).items()
        if (value := found[name]) is not None and value > limit
    ]


def main() -> int:
    """The command. The exit status is 1 when something is over its limit."""
    parser = argparse.ArgumentParser(description="Measure what the agent costs a node.")
    length = (
        f"how long to measure (default: %(default)s); the rate of writes needs some {ENOUGH_SECONDS:g}: a shorter run "
        f"leaves it out; under {GROWTH_SECONDS:g} the slopes of memory mean little, as code still comes back, and have "
        "no limit"
    )
    parser.add_argument("--seconds", type=float, default=600, help=length)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    if options.seconds < 5:
        parser.error("--seconds must be at least 5")
    found = asyncio.run(measure(options.seconds, Console(stderr=True)))
    if options.json:
        print(json.dumps(asdict(found), indent=1))
    else:
        show(found, Console())
    problems = over(asdict(found), found.seconds)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
