"""The act about other hardware: the same agent, with a recorded node in place of a driver.

Where readings come from is one small Protocol. A recording is its second implementation, and all behind it (health,
status, series) comes about as from a driver. The agent runs as a process of this machine beside stand-ins for kubelet
and apiserver: the cluster's nodes have agents already.
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
"""From here on it is three seconds to the fault."""

SERIES = "gpufleet_agent_device_fault{"
FAULTS = frozenset({"DeviceLost", "XidError"})
SUBJECT = "the recorded node"


@dataclass(frozen=True, slots=True)
class Replay:
    """What the agent made of the recording."""

    status: Mapping[str, Any]
    """As written last."""
    series: tuple[str, ...]
    """The lines of the last scrape that tell of faults."""

    @property
    def complete(self) -> bool:
        """Whether both tell all that was recorded."""
        told = {code for code in FAULTS if any(f'code="{code}"' in line for line in self.series)}
        return faults(self.status) >= FAULTS and told == FAULTS


def show_recorded_node(context: DemoContext) -> None:
    """Play the recording's worst moment, and see it in the status and in the series; note it when it isn't there."""
    terminal = context.terminal
    terminal.say(
        f"An agent of its own plays the last seconds of {RECORDING.name} before a GPU falls off the bus "
        "(--hardware=recorded --recording=FILE); what it tells:"
    )
    try:
        played = asyncio.run(_play(terminal.progress, context.timeout_seconds))
    except (RuntimeError, TimeoutError) as error:
        otherwise = str(error) or f"not within {context.timeout_seconds:g} s"
        context.check(holds=False, subject=SUBJECT, claim="the agent shows the fault", otherwise=otherwise)
        return
    terminal.show(status_table(played.status))
    terminal.say("And on /metrics, for alerts:")
    for line in played.series:
        terminal.quote(line)
    context.check(
        holds=played.complete,
        subject=SUBJECT,
        claim="the fault that was recorded is in the GPUTelemetry and in the series, as from a driver",
        otherwise=f"the status has {sorted(faults(played.status))}, the series are {list(played.series)}",
    )


def faults(status: Mapping[str, Any]) -> set[str]:
    """Codes of the faults that a status tells, of all devices."""
    devices: Iterable[Mapping[str, Any]] = status.get("devices", ())
    return {reason["code"] for device in devices for reason in device["health"].get("reasons", ())}


def excerpt(recording: Recording, begin: float) -> Iterator[bytes]:
    """The lines of the recording from a moment on; what stood at that moment stands at its start."""
    yield render_header(recording.driver_version)
    for entry in recording.entries:
        if entry.at >= begin or not isinstance(entry.content, DeviceEvent):
            yield render(Entry(max(0.0, entry.at - begin), entry.content))


async def _play(tell: Callable[[str], None], timeout_seconds: float) -> Replay:
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
                await _until_told(node, tell)
                await node.scrape()
                return Replay(node.server.status, tuple(_series(node.page)))


async def _until_told(node: Node, tell: Callable[[str], None]) -> None:
    """Follow what is written until it tells the fault."""
    shown: Mapping[str, Any] = {}
    tell(f"the agent is ready: {len(node.server.status['devices'])} GPUs")
    while True:
        if node.process.returncode is not None:
            raise RuntimeError(f"the agent ended with status {node.process.returncode}")
        status = node.server.status
        for line in health_changes(shown, status):
            tell(line)
        shown = status
        if faults(status) >= FAULTS:
            return
        await asyncio.sleep(0.1)


def _series(page: bytes) -> Iterator[str]:
    return (line for line in page.decode().splitlines() if line.startswith(SERIES) and not line.endswith(" 0.0"))
