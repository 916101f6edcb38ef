"""The agent on real NVML: what the hardware tells, what asking costs, how it fares for minutes, what nvidia-smi says.

    python bench/nvml.py [--minutes 10] [--status FILE] [--json FILE] [--docs docs/development/hardware.md]
    python bench/nvml.py --simulated --minutes 1

Needs a node with an NVIDIA driver and no cluster: the agent publishes to a stand-in on 127.0.0.1, and what it wrote
last goes to a file. `--simulated` shows that the script runs, on our own libnvidia-ml.so.1; such figures are no
measurement of hardware, and `--docs` refuses them.
"""

import argparse
import asyncio
import csv
import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from rich.console import Console
from rich.progress import Progress

from gpufleet_agent.devices.base import DeviceError, DeviceInfo, HardwareError, Reading, SlowReading
from gpufleet_agent.devices.nvml import NvmlHardware
from gpufleet_agent.devices.nvml_device import NvmlDevice
from gpufleet_common.logs import configure
from gpufleet_e2e.fakes.node import running
from gpufleet_e2e.fakes.process import ProcessSamples, quantile
from gpufleet_simgpu.build import build_library
from gpufleet_simgpu.files import STATE, write_state
from gpufleet_simgpu.presets import make_node

ROUNDS = 60
"""Readings of each device from which the cost of a call is taken."""
WARM_UP_SECONDS = 20.0
SMI = {
    "memory.total": "memory_total_mib",
    "memory.used": "memory_used_mib",
    "utilization.gpu": "utilization_percent",
    "temperature.gpu": "temperature_celsius",
    "power.draw": "power_milliwatts",
    "clocks.sm": "sm_clock_mhz",
    "clocks.mem": "memory_clock_mhz",
}
"""nvidia-smi's queries, and our fields. Its power is in watts."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one call, in microseconds."""

    what: str
    calls: int
    p50: float
    p99: float
    max: float


@contextmanager
def timed() -> Iterator[Callable[[], list[Cost]]]:
    """Time every question to NVML; gives a function that tells the costs so far, dearest first."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    ask = NvmlDevice.ask

    def measured(self: NvmlDevice, what: str, call: Callable[[Any], Any]) -> Any:
        began = perf_counter_ns()
        try:
            return ask(self, what, call)
        finally:
            if what not in self.unsupported:
                times[what].append((perf_counter_ns() - began) / 1000)

    def costs() -> list[Cost]:
        found = [
            Cost(what, len(us), round(quantile(us, 0.5), 1), round(quantile(us, 0.99), 1), round(max(us), 1))
            for what, us in times.items()
        ]
        return sorted(found, key=lambda cost: -cost.p50)

    NvmlDevice.ask = measured  # type: ignore[method-assign] # for the time of the measurement
    try:
        yield costs
    finally:
        NvmlDevice.ask = ask  # type: ignore[method-assign] # as it was


@contextmanager
def driver(*, simulated: bool) -> Iterator[dict[str, str]]:
    """The library that this process finds; gives the environment in which another finds the same."""
    if not simulated:
        yield {"LD_LIBRARY_PATH": path} if (path := os.environ.get("LD_LIBRARY_PATH")) else {}
        return
    with tempfile.TemporaryDirectory(prefix="gf") as folder:
        library = build_library(Path(folder))
        write_state(Path(folder) / STATE, make_node("h100", 8, node="bench"))
        ctypes.CDLL(str(library))  # loaded, so that the loader has it when nvidia-ml-py asks for that name
        yield {"LD_LIBRARY_PATH": folder}


def library_path() -> str:
    """Which libnvidia-ml this process has loaded."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    return next((line.split(maxsplit=5)[5].strip() for line in maps.splitlines() if "libnvidia-ml" in line), "none")


def is_simulated() -> bool:
    """Whether what is loaded is our own library: it has its state beside it, or named in the environment."""
    return "GPUFLEET_SIM_STATE" in os.environ or (Path(library_path()).parent / STATE).exists()


def opened() -> NvmlHardware:
    """NVML with every device that answers.

    Raises:
        HardwareError: There is no driver.
    """
    hardware = NvmlHardware()
    hardware.open()
    for slot in range(hardware.device_count()):
        try:
            hardware.identify(slot)
        except DeviceError as error:
            print(f"left out: {error}", file=sys.stderr)
    return hardware


def reported(hardware: NvmlHardware) -> dict[str, list[int]]:
    """By field: indices of the devices that tell it."""
    found: dict[str, set[int]] = {}
    for info in hardware.devices():
        parts = (info, hardware.read(info.uuid), hardware.read_slow(info.uuid))
        for part, kind in zip(parts, (DeviceInfo, Reading, SlowReading), strict=True):
            for name in (field.name for field in fields(kind) if field.name not in {"uuid", "index"}):
                found.setdefault(name, set())
                nothing = (None, ()) if part is info else (None,)
                if getattr(part, name) not in nothing:
                    found[name].add(info.index)
    return {name: sorted(indices) for name, indices in found.items()}


def compared(hardware: NvmlHardware) -> list[dict[str, Any]] | str:
    """Each field that nvidia-smi tells, too, as both have it; or why there is no comparison."""
    if shutil.which("nvidia-smi") is None:
        return "nvidia-smi is not installed here: nothing was compared"
    command = ["nvidia-smi", f"--query-gpu=uuid,{','.join(SMI)}", "--format=csv,noheader,nounits"]
    before = {info.uuid: hardware.read(info.uuid) for info in hardware.devices()}
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return f"nvidia-smi ended with {done.returncode}: {(done.stderr or done.stdout).strip()}"
    rows = []
    for uuid, *values in csv.reader(done.stdout.splitlines(), skipinitialspace=True):
        for (query, name), text in zip(SMI.items(), values, strict=True):
            ours = getattr(before[uuid], name) if uuid in before else None
            if ours is not None and name == "power_milliwatts":
                ours /= 1000
            rows.append({"uuid": uuid, "field": query, "nvidia_smi": text, "agent": ours})
    return rows


async def soaked(environment: Mapping[str, str], uuids: list[str], seconds: float, console: Console) -> dict[str, Any]:
    """The agent for so long: what it cost, and what it wrote last."""
    with tempfile.TemporaryDirectory(prefix="gf") as name, Progress(console=console, transient=True) as progress:
        async with running(Path(name), "bench", uuids, environment) as node:
            task = progress.add_task("measuring", total=seconds)

            def told(passed: float, course: ProcessSamples) -> None:
                progress.update(task, completed=passed, description=f"measuring: {course.rss_mib[-1]:.1f} MiB")

            course = await node.follow(seconds, told)
            series = [line for line in node.page.decode().splitlines() if line.startswith("DCGM_")]
    steady = course.after(course.at[0] + min(WARM_UP_SECONDS, seconds / 3))
    return {
        "seconds": round(course.seconds, 1),
        "rss_mib": round(max(steady.rss_mib), 2),
        "rss_slope_mib_per_hour": round(steady.slope_mib_per_hour, 2),
        "cpu_percent": round(steady.cpu_percent, 3),
        "status_writes": node.server.written,
        "scrape_ms_p50": round(statistics.median(node.scrapes), 2),
        "scrape_ms_max": round(max(node.scrapes), 2),
        "dcgm_series": len(series),
        "status": node.server.status,
    }


def measure(options: argparse.Namespace, environment: Mapping[str, str], console: Console) -> dict[str, Any]:
    """Everything.

    Raises:
        HardwareError: There is no driver.
    """
    with timed() as costs:
        hardware = opened()
        try:
            infos = hardware.devices()
            found: dict[str, Any] = {
                "library": library_path(),
                "simulated": is_simulated(),
                "driver": hardware.driver_version(),
                "devices": [info.model for info in infos],
                "fields": reported(hardware),
                "nvidia_smi": compared(hardware),
            }
            for _ in range(ROUNDS):
                for info in infos:
                    hardware.read(info.uuid)
                    hardware.read_slow(info.uuid)
            found["costs"] = [{name: getattr(cost, name) for name in Cost.__slots__} for cost in costs()]
        finally:
            hardware.close()
    found["agent"] = asyncio.run(soaked(environment, [info.uuid for info in infos], options.minutes * 60, console))
    return found


def document(found: Mapping[str, Any]) -> Iterator[str]:
    """The figures as a page of the docs."""
    models = ", ".join(f"{found['devices'].count(model)} x {model}" for model in dict.fromkeys(found["devices"]))
    yield "# Measured hardware\n"
    if found["simulated"]:
        yield "**Simulated GPUs: these figures show that the script runs, and nothing about hardware.**\n"
    yield f"{models}, driver {found['driver']}. Made by `bench/nvml.py`.\n"
    yield "## What the hardware tells\n| field | devices that tell it |\n|---|---|"
    for name, indices in found["fields"].items():
        yield f"| {name} | {len(indices)} of {len(found['devices'])} |"
    yield f"\n## What a question costs\n{ROUNDS} rounds, in microseconds.\n"
    yield "| question | calls | p50 | p99 | max |\n|---|---|---|---|---|"
    for cost in found["costs"]:
        yield f"| {cost['what']} | {cost['calls']} | {cost['p50']} | {cost['p99']} | {cost['max']} |"
    yield "\n## The agent, sampling each second\n| | |\n|---|---|"
    for name, value in found["agent"].items():
        if name != "status":
            yield f"| {name} | {value} |"
    yield "\n## Beside nvidia-smi"
    if isinstance(found["nvidia_smi"], str):
        yield found["nvidia_smi"]
        return
    yield "| device | query | nvidia-smi | agent, just before |\n|---|---|---|---|"
    for row in found["nvidia_smi"]:
        yield f"| {row['uuid']} | {row['field']} | {row['nvidia_smi']} | {row['agent']} |"


def main() -> int:
    """The command. The exit status is 1 without a driver."""
    parser = argparse.ArgumentParser(description="Measure the agent on this machine's NVIDIA GPUs.")
    parser.add_argument("--minutes", type=float, default=10, help="how long the agent runs (default: %(default)s)")
    parser.add_argument("--simulated", action="store_true", help="on simulated GPUs, to see that this script runs")
    parser.add_argument("--status", type=Path, help="file for the status that the agent wrote last")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--docs", type=Path, help="page of the docs to write")
    options = parser.parse_args()
    configure("warning", "console")
    with driver(simulated=options.simulated) as environment:
        try:
            found = measure(options, environment, Console(stderr=True))
        except HardwareError as error:
            print(error, file=sys.stderr)
            return 1
    if options.docs and found["simulated"]:
        parser.error("--docs is for figures of real hardware")
    page = "\n".join(document(found)) + "\n"
    print(page)
    for path, text in (
        (options.status, json.dumps(found["agent"].pop("status"), indent=1)),
        (options.json, json.dumps(found, indent=1)),
        (options.docs, page.rstrip()),
    ):
        if path is not None:
            path.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
