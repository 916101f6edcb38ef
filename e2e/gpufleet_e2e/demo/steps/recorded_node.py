"""The step of other hardware: the same agent with a recorded node instead of a driver.

Readings come through one small Protocol. A recording is its second implementation; everything behind it (health,
status, metrics) works as with a driver. The agent runs as a process of this machine with a fake kubelet and a fake
apiserver, because the cluster's nodes already have agents.
"""

import asyncio
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpufleet_agent.devices.base import DeviceEvent
from gpufleet_agent.devices.recording.format import Entry, Recording, parse, render, render_header
from gpufleet_e2e.demo.context import DemoContext
from gpufleet_e2e.demo.recorded import FLAGS, RECORDING, health_changes, status_table
from gpufleet_e2e.fakes.node import Node, running

BEGIN_SECONDS = 57.0
"""Three seconds before the fault."""

SERIES = "gpufleet_agent_device_fault{"
FAULTS = frozenset({"DeviceLost", "XidError"})
SUBJECT = "the recorded node"


@dataclass(frozen=True, slots=True)
class Replay:
    """The agent's output for the recording."""

    status: Mapping[str, Any]
    """The last one written."""
    series: tuple[str, ...]
    """The fault metrics of the last scrape."""

    @property
    def complete(self) -> bool:
        """Whether status and metrics contain all recorded faults."""
        reported = {code for code in FAULTS if any(f'code="{code}"' in line for line in self.series)}
        return faults(self.status) >= FAULTS and reported == FAULTS


def show_recorded_node(context: DemoContext) -> None:
    """Plays the recorded fault, and checks that status and metrics contain it."""
    terminal = context.terminal
    terminal.say(
        f"A separate agent plays {RECORDING.name} from three seconds before a GPU falls off the bus "
        "(--hardware=recorded --recording=FILE):"
    )
    try:
        played = asyncio.run(_play(terminal.progress, context.timeout_seconds))
    except (RuntimeError, TimeoutError) as error:
        otherwise = str(error) or f"not within {context.timeout_seconds:g} s"
        context.check(holds=False, subject=SUBJECT, claim="the agent reports the fault", otherwise=otherwise)
        return
    terminal.show(status_table(played.status))
    terminal.say("Its /metrics, for alerts:")
    for line in played.series:
        terminal.quote(line)
    context.check(
        holds=played.complete,
        subject=SUBJECT,
        claim="the recorded fault is in the GPUTelemetry and in the metrics",
        otherwise=f"the status has {sorted(faults(played.status))}, the metrics are {list(played.series)}",
    )


def faults(status: Mapping[str, Any]) -> set[str]:
    """Returns the codes of all devices' faults in a status."""
    devices: Iterable[Mapping[str, Any]] = status.get("devices", ())
    return {reason["code"] for device in devices for reason in device["health"].get("reasons", ())}


def excerpt(recording: Recording, begin: float) -> Iterator[bytes]:
    """Yields the lines of the recording from a moment on, beginning with the state at that moment."""
    yield render_header(recording.driver_version)
    for entry in recording.entries:
        if entry.at >= begin or not isinstance(entry.content, DeviceEvent):
            yield render(Entry(max(0.0, entry.at - begin), entry.content))


async def _play(show: Callable[[str], None], timeout_seconds: float) -> Replay:
    with RECORDING.open("rb") as lines:
        recording = parse(lines)
    with tempfile.TemporaryDirectory(prefix="gf") as folder:
        file = Path(folder) / RECORDING.name
        file.write_bytes(b"".join(excerpt(recording, BEGIN_SECONDS)))
        held = [info.uuid for info in recording.devices()][1:]
        with (Path(folder) / "agent.log").open("wb") as log:
            flags = (*FLAGS, f"--recording={file}")
            async with (
                asyncio.timeout(timeout_seconds),
                running(Path(folder), "recorded", held, {}, *flags, log=log) as node,
            ):
                await _wait_for_fault(node, show)
                await node.scrape()
                return Replay(node.server.status, tuple(_series(node.page)))


async def _wait_for_fault(node: Node, show: Callable[[str], None]) -> None:
    """Shows changes of health until the status contains the fault."""
    shown: Mapping[str, Any] = {}
    show(f"the agent is ready: {len(node.server.status['devices'])} GPUs")
    while True:
        if node.process.returncode is not None:
            raise RuntimeError(f"the agent ended with status {node.process.returncode}")
        status = node.server.status
        for line in health_changes(shown, status):
            show(line)
        shown = status
        if faults(status) >= FAULTS:
            return
        await asyncio.sleep(0.1)


def _series(page: bytes) -> Iterator[str]:
    return (line for line in page.decode().splitlines() if line.startswith(SERIES) and not line.endswith(" 0.0"))
