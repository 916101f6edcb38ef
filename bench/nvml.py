"""Measures the agent on real NVML: reported fields, cost of each call, resources over minutes, nvidia-smi's values.

    python bench/nvml.py [--minutes 10] [--status FILE] [--json FILE] [--docs docs/development/hardware.md]
    python bench/nvml.py --simulated --minutes 1

Needs a node with an NVIDIA driver, but no cluster: the agent publishes to a fake apiserver on 127.0.0.1, and
`--status` stores its last status. `--simulated` runs the script on the simulated libnvidia-ml.so.1 to show that it
works. `--docs` rejects the figures of any library that is not the vendor's driver: the kernel module must be loaded
and /dev/nvidia0 a character device.
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
"""Readings of each device for the cost of a call."""
WARM_UP_SECONDS = 20.0
LIBRARY_VARIABLES = ("CUDA_", "GPUFLEET_SIM_", "LD_", "MOCK_NVML_", "NVIDIA_", "NVML_")
"""Prefixes of the variables that the agent's process inherits, so that it loads the same library with its settings."""
SMI = {
    "memory.total": "memory_total_mib",
    "memory.used": "memory_used_mib",
    "utilization.gpu": "utilization_percent",
    "temperature.gpu": "temperature_celsius",
    "power.draw": "power_milliwatts",
    "clocks.sm": "sm_clock_mhz",
    "clocks.mem": "memory_clock_mhz",
}
"""nvidia-smi's query -> the agent's field. nvidia-smi's power is in watts."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Duration of one NVML call in microseconds."""

    what: str
    calls: int
    p50: float
    p99: float
    max: float


@contextmanager
def timed() -> Iterator[Callable[[], list[Cost]]]:
    """Times every NVML call. Yields a function that returns the costs so far, highest median first."""
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

    NvmlDevice.ask = measured  # type: ignore[method-assign] # during the measurement
    try:
        yield costs
    finally:
        NvmlDevice.ask = ask  # type: ignore[method-assign] # restored


@contextmanager
def driver(*, simulated: bool) -> Iterator[dict[str, str]]:
    """Loads the simulated library if requested. Yields the environment in which other processes find this library."""
    if not simulated:
        yield {name: value for name, value in os.environ.items() if name.startswith(LIBRARY_VARIABLES)}
        return
    with tempfile.TemporaryDirectory(prefix="gf") as folder:
        library = build_library(Path(folder))
        write_state(Path(folder) / STATE, make_node("h100", 8, node="bench"))
        ctypes.CDLL(str(library))  # nvidia-ml-py then gets this library by its name
        yield {"LD_LIBRARY_PATH": folder}


def library_path() -> str:
    """Returns the path of the libnvidia-ml that this process has loaded, or "none"."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    return next((line.split(maxsplit=5)[5].strip() for line in maps.splitlines() if "libnvidia-ml" in line), "none")


def is_simulated() -> bool:
    """Reports whether the simulated library is loaded: its state is in the same folder or named in the environment."""
    return "GPUFLEET_SIM_STATE" in os.environ or (Path(library_path()).parent / STATE).exists()


def why_not_the_driver(proc: Path = Path("/proc"), dev: Path = Path("/dev")) -> str | None:
    """Returns why the loaded library cannot be the vendor's driver; None if it can.

    Args:
        proc: The directory of the kernel's processes and modules.
        dev: The directory of device nodes.
    """
    if not (proc / "driver/nvidia/version").is_file():
        return f"the kernel module is not loaded: {proc / 'driver/nvidia/version'} is missing"
    if not (dev / "nvidia0").is_char_device():
        return f"{dev / 'nvidia0'} is not a character device"
    return None


def opened() -> NvmlHardware:
    """Returns NVML with every device that can be identified.

    Raises:
        HardwareError: There is no driver.
    """
    hardware = NvmlHardware()
    hardware.open()
    for index in range(hardware.device_count()):
        try:
            hardware.identify(index)
        except DeviceError as error:
            print(f"device skipped: {error}", file=sys.stderr)
    return hardware


def reported(hardware: NvmlHardware) -> dict[str, list[int]]:
    """Returns for each field the indices of the devices that report it."""
    found: dict[str, set[int]] = {}
    for info in hardware.devices():
        parts = (info, hardware.read(info.uuid), hardware.read_slow(info.uuid))
        for part, kind in zip(parts, (DeviceInfo, Reading, SlowReading), strict=True):
            for name in (field.name for field in fields(kind) if field.name not in {"uuid", "index", "unreadable"}):
                found.setdefault(name, set())
                nothing = (None, ()) if part is info else (None,)
                if getattr(part, name) not in nothing:
                    found[name].add(info.index)
    return {name: sorted(indices) for name, indices in found.items()}


def compared(hardware: NvmlHardware) -> list[dict[str, Any]] | str:
    """Returns the values of nvidia-smi and the agent for each common field, or the reason for not comparing them."""
    if shutil.which("nvidia-smi") is None:
        return "Not compared: nvidia-smi is not installed."
    command = ["nvidia-smi", f"--query-gpu=uuid,{','.join(SMI)}", "--format=csv,noheader,nounits"]
    before = {info.uuid: hardware.read(info.uuid) for info in hardware.devices()}
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return f"Not compared: nvidia-smi exited with status {done.returncode}: {(done.stderr or done.stdout).strip()}"
    rows = []
    for uuid, *values in csv.reader(done.stdout.splitlines(), skipinitialspace=True):
        for (query, name), text in zip(SMI.items(), values, strict=True):
            ours = getattr(before[uuid], name) if uuid in before else None
            if ours is not None and name == "power_milliwatts":
                ours /= 1000
            rows.append({"uuid": uuid, "field": query, "nvidia_smi": text, "agent": ours})
    return rows


async def soaked(environment: Mapping[str, str], uuids: list[str], seconds: float, console: Console) -> dict[str, Any]:
    """Runs the agent for `seconds`. Returns its cost and its last status."""
    with tempfile.TemporaryDirectory(prefix="gf") as name, Progress(console=console, transient=True) as progress:
        async with running(Path(name), "bench", uuids, environment) as node:
            task = progress.add_task("measuring", total=seconds)

            def report(passed: float, course: ProcessSamples) -> None:
                progress.update(task, completed=passed, description=f"measuring: {course.rss_mib[-1]:.1f} MiB")

            course = await node.follow(seconds, report)
            series = [line for line in node.page.decode().splitlines() if line.startswith("DCGM_")]
    steady = course.after(course.at[0] + min(WARM_UP_SECONDS, seconds / 3))
    return {
        "seconds": round(course.seconds, 1),
        "rss_mib": round(max(steady.rss_mib), 2),
        "rss_slope_mib_per_hour": round(steady.slope_mib_per_hour, 2),
        "cpu_percent": round(steady.cpu_percent, 3),
        "status_writes": node.server.written,
        "lease_renewals": len(node.server.renewed_at),
        "scrape_ms_p50": round(statistics.median(node.scrapes), 2),
        "scrape_ms_max": round(max(node.scrapes), 2),
        "dcgm_series": len(series),
        "status": node.server.status,
    }


def measure(options: argparse.Namespace, environment: Mapping[str, str], console: Console) -> dict[str, Any]:
    """Returns all figures.

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
                "not_the_driver": why_not_the_driver(),
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
    """Yields the figures as Markdown for the page of the docs."""
    models = ", ".join(f"{found['devices'].count(model)} x {model}" for model in dict.fromkeys(found["devices"]))
    yield "# Measured hardware\n"
    if found["simulated"]:
        yield "**Simulated GPUs: these figures only show that the script runs.**\n"
    elif found["not_the_driver"]:
        yield f"**Not the vendor's driver, {found['not_the_driver']}: these figures are not of hardware.**\n"
    yield f"{models}, driver {found['driver']}. Made by `bench/nvml.py`.\n"
    yield "## Reported fields\n| field | devices that report it |\n|---|---|"
    for name, indices in found["fields"].items():
        yield f"| {name} | {len(indices)} of {len(found['devices'])} |"
    yield f"\n## Cost of NVML calls\n{ROUNDS} rounds, in microseconds.\n"
    yield "| call | count | p50 | p99 | max |\n|---|---|---|---|---|"
    for cost in found["costs"]:
        yield f"| {cost['what']} | {cost['calls']} | {cost['p50']} | {cost['p99']} | {cost['max']} |"
    yield "\n## Agent with a sample every second\n| | |\n|---|---|"
    for name, value in found["agent"].items():
        if name != "status":
            yield f"| {name} | {value} |"
    yield "\n## Comparison with nvidia-smi"
    if isinstance(found["nvidia_smi"], str):
        yield found["nvidia_smi"]
        return
    yield "| device | query | nvidia-smi | agent, immediately before |\n|---|---|---|---|"
    for row in found["nvidia_smi"]:
        yield f"| {row['uuid']} | {row['field']} | {row['nvidia_smi']} | {row['agent']} |"


def main() -> int:
    """Runs the command. Returns the exit status: 1 if there is no driver."""
    parser = argparse.ArgumentParser(description="Measure the agent on this machine's NVIDIA GPUs.")
    parser.add_argument("--minutes", type=float, default=10, help="duration of the agent's run (default: %(default)s)")
    parser.add_argument("--simulated", action="store_true", help="use simulated GPUs, to check this script")
    parser.add_argument("--status", type=Path, help="file for the agent's last status")
    parser.add_argument("--json", type=Path, help="file for the figures as JSON")
    parser.add_argument("--docs", type=Path, help="documentation page to write")
    options = parser.parse_args()
    configure("warning", "console")
    if options.docs and (problem := "--simulated" if options.simulated else why_not_the_driver()):
        parser.error(f"--docs requires the vendor's driver: {problem}")
    with driver(simulated=options.simulated) as environment:
        try:
            found = measure(options, environment, Console(stderr=True))
        except HardwareError as error:
            print(error, file=sys.stderr)
            return 1
    if options.docs and found["simulated"]:
        parser.error(f"--docs requires the vendor's driver: {found['library']} is the simulated library")
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
