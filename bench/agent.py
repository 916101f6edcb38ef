"""What the agent costs a node: the real process on eight simulated GPUs, for ten minutes.

    python bench/agent.py [--seconds 600] [--json]

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
import socket
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from gpufleet_simgpu.build import build_library
from gpufleet_simgpu.files import STATE, write_state
from gpufleet_simgpu.model import SimGpu, SimProcess, SimSeries
from gpufleet_simgpu.presets import busy, make_node
from standin.apiserver import ApiServer, serving
from standin.kubelet import Kubelet

NODE = "bench"
GPUS = 8
RESOURCE = "gpufleet.dev/gpu"
LOOK_SECONDS = 1.0
SCRAPE_SECONDS = 15.0
WARM_UP_SECONDS = 60.0
EXTRA_SCRAPES = 100
"""Made after the measurement, one right after the other: forty scrapes have no 99th percentile."""
IMPORTS = 7
START_SECONDS = 60.0
LIMITS = {"rss_mib": 60.0, "rss_peak_mib": 60.0, "cpu_percent": 1.0, "writes_per_minute": 2.0, "import_s": 0.7}
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
    """Least squares over the seconds after the warm-up."""
    cpu_percent: float
    """Of one core."""
    writes_per_minute: float
    written_bytes: float
    """Mean size of a write of the status."""
    scrape_ms_p50: float
    scrape_ms_p99: float
    scrape_bytes: int
    import_s: float
    """Median of some fresh processes."""
    window_bytes_per_device: int
    threads: int
    load_average: float
    """Of the machine, at the end."""


@dataclass(slots=True)
class Course:
    """The agent's process, looked at once a second."""

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

    def after(self, moment: float) -> "Course":
        """The part from a moment on."""
        first = next(place for place, at in enumerate(self.at) if at >= moment)
        return Course(self.pid, self.at[first:], self.rss_mib[first:], self.cpu_seconds[first:])

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
        """Growth of the resident memory."""
        return statistics.linear_regression(self.at, self.rss_mib).slope * 3600


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


@asynccontextmanager
async def agent(
    folder: Path, kubeconfig: Path, kubelet: Kubelet, port: int
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command, running."""
    command = [str(Path(sys.executable).with_name("gpufleet-agent")), f"--node-name={NODE}"]
    command += [f"--device-plugin-dir={kubelet.device_plugins}", f"--pod-resources-socket={kubelet.pod_resources}"]
    command += [f"--listen=127.0.0.1:{port}", "--sample-seconds=1", "--log-level=warning"]
    inherited = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG", "MALLOC_ARENA_MAX"}}
    environment = {**inherited, "HOME": str(folder), "KUBECONFIG": str(kubeconfig), "LD_LIBRARY_PATH": str(folder)}
    process = await asyncio.create_subprocess_exec(*command, env=environment)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def scrape(port: int, path: str = "/metrics") -> tuple[float, int, bytes]:
    """Milliseconds that an answer took, its status and its body."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: agent\r\n\r\n".encode())
    answer = await reader.read()
    took = (time.perf_counter() - began) * 1000
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return took, int(head.split()[1]), body


async def until_ready(process: Process, port: int) -> None:
    """Wait until the agent has registered and published.

    Raises:
        RuntimeError: It ended instead, or takes too long.
    """
    async with asyncio.timeout(START_SECONDS):
        while process.returncode is None:
            try:
                _, status, _ = await scrape(port, "/readyz")
            except OSError:
                status = 0
            if status == 200:
                return
            await asyncio.sleep(0.1)
    raise RuntimeError(f"the agent ended with status {process.returncode}")


async def follow(course: Course, port: int, seconds: float, progress: Progress) -> tuple[list[float], int]:
    """Look at the process each second and scrape on schedule; gives the scrapes' milliseconds and the page's size."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    task = progress.add_task("measuring", total=seconds)
    scrapes: list[float] = []
    size, due = 0, began
    while (now := loop.time()) < began + seconds:
        course.look(now)
        if now >= due:
            due += SCRAPE_SECONDS
            took, _, body = await scrape(port)
            scrapes.append(took)
            size = len(body)
        done = loop.time() - began
        progress.update(task, completed=done, description=f"measuring: {course.rss_mib[-1]:.1f} MiB")
        await asyncio.sleep(LOOK_SECONDS - done % LOOK_SECONDS)
    course.look(loop.time())
    progress.update(task, completed=seconds)
    return scrapes, size


async def import_seconds() -> float:
    """Median time that a fresh process takes to import the agent."""
    times = []
    for _ in range(IMPORTS):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", _IMPORT, stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        times.append(float(out))
    return statistics.median(times)


def window_bytes() -> int:
    """Memory of one device's window, as its rings take it."""
    from gpufleet_agent.sampling.window import Window  # noqa: PLC0415 - the agent is measured in its own process

    return Window(seconds=60, capacity=62).nbytes


async def measure(seconds: float, console: Console) -> Found:
    """Everything."""
    imported = await import_seconds()
    server = ApiServer(NODE)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="gf") as name, Progress(console=console, transient=True) as progress:
        folder = Path(name)
        build_library(folder)
        gpus(folder, random.Random(6))
        with serving(folder, server) as kubeconfig:
            async with Kubelet(folder) as kubelet:
                for gpu in make_node("h100", GPUS, node=NODE).gpus:
                    kubelet.held["ml", f"train-{gpu.minor}", "main"] = {RESOURCE: [gpu.uuid]}
                async with agent(folder, kubeconfig, kubelet, port) as process:
                    await until_ready(process, port)
                    course = Course(process.pid)
                    warm_up = min(WARM_UP_SECONDS, seconds / 3)
                    asyncio.get_running_loop().call_later(warm_up, server.writes.clear)
                    scrapes, size = await follow(course, port, seconds, progress)
                    writes = server.writes.total()
                    peak = peak_mib(process.pid)
                    threads = thread_count(process.pid)
                    scrapes += [(await scrape(port))[0] for _ in range(EXTRA_SCRAPES)]
    steady = course.after(course.at[0] + warm_up)
    tenth = max(1, len(steady.at) // 10)
    return Found(
        seconds=round(course.seconds, 1),
        rss_mib=round(max(steady.rss_mib), 2),
        rss_peak_mib=round(peak, 2),
        rss_start_mib=round(statistics.fmean(steady.rss_mib[:tenth]), 2),
        rss_end_mib=round(statistics.fmean(steady.rss_mib[-tenth:]), 2),
        rss_slope_mib_per_hour=round(steady.slope_mib_per_hour, 2),
        cpu_percent=round(steady.cpu_percent, 3),
        writes_per_minute=round(writes * 60 / steady.seconds, 2),
        written_bytes=round(server.written_bytes / max(1, server.written)),
        scrape_ms_p50=round(quantile(scrapes, 0.5), 2),
        scrape_ms_p99=round(quantile(scrapes, 0.99), 2),
        scrape_bytes=size,
        import_s=round(imported, 3),
        window_bytes_per_device=window_bytes(),
        threads=threads,
        load_average=round(os.getloadavg()[0], 2),
    )


def show(found: Found, console: Console) -> None:
    """For people."""
    table = Table(title=f"the agent with {GPUS} GPUs over {found.seconds:g} s")
    table.add_column("")
    table.add_column("measured", justify="right")
    table.add_column("limit", justify="right")
    for name, value in asdict(found).items():
        limit = LIMITS.get(name)
        style = "red" if limit is not None and value > limit else ""
        table.add_row(name, f"{value:g}", "" if limit is None else f"{limit:g}", style=style)
    console.print(table)


def over(found: Mapping[str, float]) -> list[str]:
    """What is over its limit, in words."""
    return [f"{name} is {found[name]:g}, more than {limit:g}" for name, limit in LIMITS.items() if found[name] > limit]


def main() -> int:
    """The command. The exit status is 1 when something is over its limit."""
    parser = argparse.ArgumentParser(description="Measure what the agent costs a node.")
    parser.add_argument("--seconds", type=float, default=600, help="how long to measure (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    if options.seconds < 5:
        parser.error("--seconds must be at least 5")
    found = asyncio.run(measure(options.seconds, Console(stderr=True)))
    if options.json:
        print(json.dumps(asdict(found), indent=1))
    else:
        show(found, Console())
    problems = over(asdict(found))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
