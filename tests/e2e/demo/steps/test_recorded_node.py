"""The act of the recorded node: which part is played, and what counts as seen."""

from io import StringIO
from typing import Any, cast

import pytest

from gpufleet_agent.devices.base import DeviceEvent, Reading
from gpufleet_agent.devices.recording.format import parse, render
from gpufleet_agent.devices.recording.player import RecordingPlayer
from gpufleet_e2e.demo.context import DemoContext
from gpufleet_e2e.demo.recorded import RECORDING
from gpufleet_e2e.demo.steps import recorded_node
from gpufleet_e2e.demo.terminal import Terminal, make_console
from gpufleet_e2e.proof import EvidenceCollector
from gpufleet_testbed import Cluster

LINES = """{"format": "gpufleet-recording/1", "driver_version": "580.1"}
{"at": 0, "device": {"uuid": "GPU-1", "index": 0, "model": "H100"}}
{"at": 0, "reading": {"uuid": "GPU-1", "temperature_celsius": 40}}
{"at": 1, "event": {"uuid": "GPU-1", "kind": "XidError", "code": 31, "message": "an old one", "fault": false}}
{"at": 10, "reading": {"uuid": "GPU-1", "temperature_celsius": 60}}
{"at": 20, "reading": {"uuid": "GPU-1", "temperature_celsius": 90}}
"""


def status(*codes: str) -> dict[str, Any]:
    return {"devices": [{"uuid": "GPU-1", "index": 0, "health": {"reasons": [{"code": code} for code in codes]}}]}


def series(*codes: str) -> tuple[str, ...]:
    return tuple(f'gpufleet_agent_device_fault{{UUID="GPU-1",code="{code}",gpu="0"}} 1.0' for code in codes)


def test_excerpt_begins_with_the_state_at_its_start() -> None:
    whole, now = parse(LINES.encode().splitlines()), 0.0
    cut = parse(recorded_node.excerpt(whole, 12.0))
    assert cut.driver_version == "580.1"
    assert cut.devices() == whole.devices()
    assert not [entry for entry in cut.entries if isinstance(entry.content, DeviceEvent)], (
        "what is past is not reported again"
    )
    hardware = RecordingPlayer(cut, clock=lambda: now, sleep=lambda _: None)
    hardware.open()
    hardware.identify(0)
    assert hardware.read("GPU-1").temperature_celsius == 60
    now = 8.5
    assert hardware.read("GPU-1").temperature_celsius == 90


def test_excerpt_contains_the_fault_soon_after_its_start() -> None:
    with RECORDING.open("rb") as lines:
        cut = parse(recorded_node.excerpt(parse(lines), recorded_node.BEGIN_SECONDS))
    (event,) = (entry for entry in cut.entries if isinstance(entry.content, DeviceEvent))
    assert 0 < event.at <= 5
    hottest = max(
        entry.content.temperature_celsius or 0
        for entry in cut.entries
        if isinstance(entry.content, Reading) and not entry.at
    )
    assert hottest == 90
    assert all(render(entry) for entry in cut.entries)


@pytest.mark.parametrize(
    ("told", "shown", "complete"),
    [
        (("DeviceLost", "XidError"), ("DeviceLost", "XidError"), True),
        (("DeviceLost",), ("DeviceLost", "XidError"), False),
        (("DeviceLost", "XidError"), ("XidError",), False),
        ((), (), False),
    ],
)
def test_replay_is_complete_with_status_and_metrics(
    told: tuple[str, ...], shown: tuple[str, ...], *, complete: bool
) -> None:
    assert recorded_node.Replay(status(*told), series(*shown)).complete is complete


@pytest.mark.parametrize(
    ("error", "words"), [(RuntimeError("the agent ended with status 1"), "status 1"), (TimeoutError(), "within 5 s")]
)
def test_agent_without_the_fault_is_a_recorded_problem(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(recorded_node, "_play", fail)
    terminal = Terminal(make_console(StringIO()), 1)
    context = DemoContext(cast("Cluster", None), cast("EvidenceCollector", None), terminal, timeout_seconds=5)
    recorded_node.show_recorded_node(context)
    assert [words in str(problem) for problem in context.problems] == [True]
