"""Measures the agent's cost on a node: memory, CPU, writes and scrapes with eight simulated GPUs for ten minutes.

    python bench/agent.py [--seconds 600] [--json]

Two minutes are enough for everything except status writes, which are five minutes apart, and memory growth: rarely used
code that the agent released at its start returns to memory within ten minutes.

The command `gpufleet-agent` runs as in production. It talks to fakes on real sockets of this process: an apiserver
(HTTPS) and a kubelet, and it loads the simulated libnvidia-ml.so.1. All devices are held and busy, fluctuate within the
dead band, are sampled every second and scraped every 15 s. Memory and CPU are the kernel's counts for the agent's
process. The first minute (a third of a shorter run) counts only for `rss_peak_mib`.
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
"""Shorter runs have no limit on growth: released code returns to memory for minutes, when it first runs again."""
ENOUGH_SECONDS = 60.0
"""Contains a heartbeat, at most 33 s after the previous one, so that the rate of renewals is known."""
EXTRA_SCRAPES = 100
"""Made in sequence after the measurement: its forty scrapes are too few for a 99th percentile."""
IMPORTS = 7
LIMITS = {
    "rss_mib": 52.0,
    "rss_peak_mib": 54.0,
    "cpu_percent": 0.7,
    "writes_per_minute": 0.2,
    "renewals_per_minute": 2.0,
    "scrape_ms_p99": 100.0,
    "import_s": 0.7,
}
GROWTH_LIMITS = {"rss_slope_mib_per_hour": 12.0, "rss_slope_late_mib_per_hour": 6.0}
"""For runs of at least `GROWTH_SECONDS`: 2 MiB in ten minutes, and half a MiB in the last five."""
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
    """The measured values. The field names are the keys of the JSON output."""

    seconds: float
    rss_mib: float
    """Maximum after the warm-up."""
    rss_peak_mib: float
    """The kernel's maximum since the process started."""
    rss_start_mib: float
    """Mean of the first tenth after the warm-up."""
    rss_end_mib: float
    """Mean of the last tenth."""
    rss_slope_mib_per_hour: float
    """Theil-Sen slope after the warm-up. In a run shorter than `GROWTH_SECONDS` it shows the start, not growth."""
    rss_slope_late_mib_per_hour: float
    """The slope of the second half, when rarely used code has returned: see `gpufleet_common.trim_memory`."""
    cpu_percent: float
    """Percent of one core."""
    writes_per_minute: float | None
    """Of the status, from the interval between two of them. None: the run was too short."""
    renewals_per_minute: float | None
    """Of the Lease, likewise."""
    written_bytes: float
    """Mean size of a status write."""
    scrape_ms_p50: float
    scrape_ms_p99: float
    scrape_bytes: int
    import_s: float
    """Minimum over `IMPORTS` new processes: other load only adds to it."""
    window_bytes_per_device: int
    threads: int
    load_average: float
    """Load average of the machine at the end."""


def gpus(folder: Path, rng: random.Random) -> None:
    """Writes the state of eight busy GPUs whose readings fluctuate within the dead band, as in steady training."""
    node = make_node("h100", GPUS, node=NODE)
    write_state(folder / STATE, replace(node, gpus=tuple(flickering(folder, gpu, rng) for gpu in node.gpus)))


def flickering(folder: Path, gpu: SimGpu, rng: random.Random) -> SimGpu:
    """Returns the GPU under load and writes its series of readings for five minutes."""
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
    """Returns the minimum time that a new process needs to import the agent."""
    times = []
    for _ in range(IMPORTS):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", _IMPORT, stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        times.append(float(out))
    return min(times)


def window_bytes() -> int:
    """Returns the bytes of one device's full window of a minute, including all objects that it references."""
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
    imported, per_window = await import_seconds(), window_bytes()
    uuids = [gpu.uuid for gpu in make_node("h100", GPUS, node=NODE).gpus]
    with tempfile.TemporaryDirectory(prefix="gf") as name, Progress(console=console, transient=True) as progress:
        folder = Path(name)
        build_library(folder)
        gpus(folder, random.Random(6))
        async with running(folder, NODE, uuids, {"LD_LIBRARY_PATH": name}, "--sample-seconds=1") as node:
            task = progress.add_task("measuring", total=seconds)

            def report(passed: float, course: ProcessSamples) -> None:
                progress.update(task, completed=passed, description=f"measuring: {course.rss_mib[-1]:.1f} MiB")

            warm_up = min(WARM_UP_SECONDS, seconds / 3)
            course = await node.follow(seconds, report)
            writes, renewals = tuple(node.server.written_at), tuple(node.server.renewed_at)
            peak, threads = peak_mib(node.process.pid), thread_count(node.process.pid)
            for _ in range(EXTRA_SCRAPES):
                await node.scrape()
    steady, late = course.after(course.at[0] + warm_up), course.after(course.at[0] + course.seconds / 2)
    reported, renewed = (per_minute(times, steady.at[0], steady.at[-1]) for times in (writes, renewals))
    return Found(
        seconds=round(course.seconds, 1),
        rss_mib=round(max(steady.rss_mib), 2),
        rss_peak_mib=round(peak, 2),
        rss_start_mib=round(steady.mean_mib(0.1), 2),
        rss_end_mib=round(steady.mean_mib(-0.1), 2),
        rss_slope_mib_per_hour=round(steady.slope_mib_per_hour, 2),
        rss_slope_late_mib_per_hour=round(late.slope_mib_per_hour, 2),
        cpu_percent=round(steady.cpu_percent, 3),
        writes_per_minute=None if reported is None else round(reported, 2),
        renewals_per_minute=None if renewed is None else round(renewed, 2),
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
    """Returns the upper limits for a run of this length."""
    # A run of 600 s is measured with a deviation of up to a second.
    return LIMITS | GROWTH_LIMITS if round(seconds, -1) >= GROWTH_SECONDS else LIMITS


def show(found: Found, console: Console) -> None:
    """Prints the values and limits as a table."""
    table = Table(title=f"the agent with {GPUS} GPUs over {found.seconds:g} s")
    table.add_column("")
    table.add_column("measured", justify="right")
    table.add_column("limit", justify="right")
    for name, value in asdict(found).items():
        limit = limits(found.seconds).get(name)
        style = "red" if limit is not None and value is not None and value > limit else ""
        shown = "run too short" if value is None else f"{value:g}"
        table.add_row(name, shown, "" if limit is None else f"{limit:g}", style=style)
    console.print(table)


def over(found: Mapping[str, float | None], seconds: float) -> list[str]:
    """Returns a message for each value that exceeds its limit in a run of this length."""
    return [
        f"{name}: {value:g} exceeds the limit of {limit:g}"
        for name, limit in limits(seconds).items()
        if (value := found[name]) is not None and value > limit
    ]


def main() -> int:
    """Runs the command. Returns the exit status: 1 if a value exceeds its limit."""
    parser = argparse.ArgumentParser(description="Measure the agent's memory, CPU, writes and scrapes on a node.")
    length = (
        f"duration of the measurement (default: %(default)s); below about {ENOUGH_SECONDS:g} the rate of renewals "
        f"may be missing; below {GROWTH_SECONDS:g} that of writes may be, and the slopes of memory have no limit, "
        "because released code still returns"
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
