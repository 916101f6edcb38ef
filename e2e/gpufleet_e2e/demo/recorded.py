"""`python -m gpufleet_e2e.demo.recorded`: runs the agent on a recorded node, without cluster, GPU and root.

The real agent plays a recording instead of reading a driver, and publishes to a fake apiserver; the output is the
status that it wrote.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from gpufleet_agent.devices.recording.format import RecordingError, parse
from gpufleet_e2e.demo.tables import namer
from gpufleet_e2e.fakes.node import Node, running
from gpufleet_testbed import repository_root

RECORDING = repository_root() / "examples" / "recordings" / "hot.jsonl"
SECONDS = 125.0
FLAGS = ("--hardware=recorded", "--window-seconds=30", "--log-level=error")

Status = Mapping[str, Any]


def health(device: Status) -> list[str]:
    """Returns the codes of faults and warnings of a device."""
    found = device["health"]
    warnings = [f"{reason['code']} (warning)" for reason in found.get("warnings", ())]
    return [reason["code"] for reason in found.get("reasons", ())] + warnings


def health_changes(before: Status, after: Status) -> Iterator[str]:
    """Describes each change of a device's health."""
    known = {device["uuid"]: health(device) for device in before.get("devices", ())}
    for device in after.get("devices", ()):
        now = health(device)
        if known.get(device["uuid"], []) != now:
            yield f"GPU {device['index']}: {device['health']['state']}{': ' if now else ''}{', '.join(now)}"


def status_table(status: Status) -> Table:
    """Builds a table of a status."""
    table = Table(title=f"GPUTelemetry, driver {status.get('driverVersion', '?')}")
    for title in ("GPU", "UUID", "used MiB", "util %", "C", "W", "p95 util", "health"):
        table.add_column(title, justify="left" if title in {"UUID", "health"} else "right", no_wrap=title != "health")
    devices = status.get("devices", ())
    short = namer(device["uuid"] for device in devices)
    for device in devices:
        p95 = device.get("window", {}).get("utilizationPercent", {}).get("p95")
        watts = device.get("powerMilliwatts")
        numbers = (
            device.get("memoryUsedMiB"),
            device.get("utilizationPercent"),
            device.get("temperatureCelsius"),
            None if watts is None else round(watts / 1000),
            p95,
        )
        cells = ["-" if number is None else str(number) for number in numbers]
        state = ", ".join(health(device)) or device["health"]["state"]
        table.add_row(str(device["index"]), short(device["uuid"]), *cells, state)
    return table


async def follow(node: Node, seconds: float, console: Console) -> None:
    """Shows each status that is written, and prints changes of a device's health."""
    shown: Status = {}
    seen = -1
    with Live(status_table({}), console=console, auto_refresh=False) as live:
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end and node.process.returncode is None:
            if node.server.version != seen:
                seen, status = node.server.version, node.server.status
                for line in health_changes(shown, status):
                    live.console.print(f"  {status['observedAt'][11:19]}  {line}")
                shown = status
                live.update(status_table(status), refresh=True)
            await asyncio.sleep(0.2)


async def play(recording: Path, seconds: float, console: Console) -> None:
    """Runs the agent on the recording."""
    with recording.open("rb") as lines:
        uuids = [info.uuid for info in parse(lines).devices()]
    flags = (*FLAGS, f"--recording={recording}")
    with tempfile.TemporaryDirectory(prefix="gf") as folder:
        async with running(Path(folder), "recorded", uuids[1:], {}, *flags) as node:
            await follow(node, seconds, console)


def main() -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m gpufleet_e2e.demo.recorded",
        description="Runs the agent on a recorded node.",
    )
    shown = RECORDING.relative_to(repository_root())
    parser.add_argument("--recording", type=Path, default=RECORDING, help=f"recording to play (default {shown})")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="duration (default %(default)s)")
    options = parser.parse_args()
    console = Console()
    console.print(f"The agent plays {options.recording.name} for {options.seconds:g} s. Its status:")
    try:
        asyncio.run(play(options.recording.resolve(), options.seconds, console))
    except (OSError, RecordingError) as error:
        print(f"gpufleet_e2e.demo.recorded: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
