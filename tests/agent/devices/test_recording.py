"""Recordings: what is written, what is rejected, and what is played."""

from collections.abc import Callable, Iterator
from errno import ENOSPC
from io import FileIO
from operator import methodcaller
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_agent.devices.base import (
    DeviceEvent,
    DeviceInfo,
    DeviceLostError,
    Hardware,
    HardwareUnavailableError,
    ProcessMemory,
    Reading,
    Sample,
    SlowReading,
    ThrottleReason,
)
from gpufleet_agent.devices.nvml import NvmlHardware
from gpufleet_agent.devices.recording.format import Entry, Failure, RecordingError, parse, render, render_header
from gpufleet_agent.devices.recording.player import RecordingPlayer, load
from gpufleet_agent.devices.recording.writer import RecordingWriter
from gpufleet_agent.sampling.sampler import Sampler
from gpufleet_simgpu.model import SimProcess
from gpufleet_simgpu.presets import make_node
from gpufleet_testing.simulated import Simulated

HEADER = '{"format": "gpufleet-recording/1", "driver_version": "580.1"}'
DEVICE = '{"at": 0, "device": {"uuid": "GPU-0", "index": 0, "model": "H100"}}'


def reading(at: float, celsius: int) -> str:
    return f'{{"at": {at}, "reading": {{"uuid": "GPU-0", "temperature_celsius": {celsius}}}}}'


class Player:
    """A recording, played by a clock of the test's own."""

    def __init__(self, *lines: str) -> None:
        self.now = 1000.0
        self.hardware = RecordingPlayer(parse([HEADER, DEVICE, *lines]), clock=lambda: self.now, sleep=self.wait)
        self.hardware.open()
        self.hardware.identify(0)

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def celsius(self, at: float) -> float | None:
        self.now = 1000.0 + at
        return self.hardware.read("GPU-0").temperature_celsius


def test_reading_lasts_until_the_next_and_playback_repeats() -> None:
    player = Player(reading(1, 40), reading(3, 50), reading(5, 60))
    assert [player.celsius(at) for at in (0, 1, 2.9, 3, 5, 6.9)] == [40, 40, 40, 50, 60, 60]
    assert [player.celsius(7 + at) for at in (0, 3, 5)] == [40, 50, 60]


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[3] / "examples" / "recordings").glob("*")), ids=str)
def test_the_examples_can_be_played(path: Path) -> None:
    hardware = load(path)
    hardware.open()
    assert [hardware.identify(slot) for slot in range(hardware.device_count())] == [
        one.uuid for one in hardware.devices()
    ]
    assert all(hardware.read(one.uuid).temperature_celsius for one in hardware.devices())


def test_what_was_not_recorded_is_not_reported() -> None:
    player = Player(reading(0, 40))
    assert player.hardware.read("GPU-0") == Reading(uuid="GPU-0", temperature_celsius=40)
    assert player.hardware.read_slow("GPU-0") == SlowReading(uuid="GPU-0")


def test_failures_last_until_the_next_line() -> None:
    lost = '{"at": 2, "error": {"uuid": "GPU-0", "kind": "DeviceLost", "message": "gone"}}'
    away = '{"at": 6, "error": {"uuid": null, "kind": "Unavailable", "message": "no driver"}}'
    player = Player(reading(0, 40), lost, reading(4, 41), away, reading(8, 42))
    assert player.celsius(1) == 40
    with pytest.raises(DeviceLostError, match="gone"):
        player.celsius(3)
    assert player.celsius(5) == 41
    with pytest.raises(HardwareUnavailableError, match="no driver"):
        player.celsius(7)
    with pytest.raises(HardwareUnavailableError):
        player.hardware.open()
    player.now = 1008.0
    player.hardware.open()
    assert player.hardware.identify(0) == "GPU-0"


def test_events_come_when_they_are_due_and_again_in_each_round() -> None:
    event = '"event": {"uuid": "GPU-0", "kind": "XidError", "code": %d, "message": "", "fault": true}'
    player = Player(reading(0, 40), *(f'{{"at": 2, {event % code}}}' for code in (31, 79)), reading(9, 40))
    assert player.hardware.wait_event(1.0) is None
    assert player.now == pytest.approx(1001.0)
    reported = [player.hardware.wait_event(5.0) for _ in range(2)]
    assert [one.code for one in reported if one] == [31, 79]
    assert player.now == pytest.approx(1002.0, abs=0.1)
    assert player.hardware.wait_event(5.0) is None
    player.now = 1000.0 + 16.0 + 2.0
    assert player.hardware.wait_event(5.0) == DeviceEvent("GPU-0", "XidError", 31, "", fault=True)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        pytest.param([], "line 1", id="empty"),
        pytest.param(["{}"], "line 1: format: must be", id="no format"),
        pytest.param([HEADER, "nonsense"], "line 2", id="no JSON"),
        pytest.param([HEADER, '{"device": {}}'], "line 2", id="no time"),
        pytest.param([HEADER, DEVICE, '{"at": 1}'], "line 3: must have one of", id="nothing beside the time"),
        pytest.param(
            [HEADER, DEVICE, reading(2, 1), reading(1, 1)], "line 4: at: 1.0: must not be less than 2.0", id="backwards"
        ),
        pytest.param([HEADER, reading(1, 1)], "device GPU-0 is not described", id="an unknown device"),
        pytest.param([HEADER, DEVICE, '{"at": 1, "reading": {"uuid": "GPU-0", "celsius": 1}}'], "no field celsius"),
        pytest.param([HEADER, DEVICE, '{"at": 1, "reading": {"uuid": "GPU-0", "power_milliwatts": "x"}}'], "line 3"),
        pytest.param([HEADER, DEVICE, '{"at": 1, "error": {"uuid": "GPU-0", "kind": "Bored"}}'], "no failure 'Bored'"),
        pytest.param([HEADER, '{"at": NaN, "device": {}}'], "line 2", id="not a number"),
    ],
)
def test_what_is_no_recording_is_rejected_with_its_line(lines: list[str], message: str) -> None:
    with pytest.raises(RecordingError, match=message):
        parse(lines)


NUMBERS = st.none() | st.integers(0, 2**40) | st.floats(0, 1e6, allow_nan=False)
CONTENT = (
    st.builds(
        Reading,
        uuid=st.just("GPU-0"),
        power_milliwatts=NUMBERS,
        throttle_reasons=st.none() | st.frozensets(st.sampled_from(ThrottleReason)),
    )
    | st.builds(
        SlowReading,
        uuid=st.just("GPU-0"),
        energy_millijoules=NUMBERS,
        processes=st.none() | st.lists(st.builds(ProcessMemory, st.integers(1, 2**22), NUMBERS), max_size=3).map(tuple),
        mig_enabled=st.none() | st.booleans(),
    )
    | st.builds(Failure, st.just("GPU-0"), st.sampled_from(["DeviceLost", "ReadFailed"]), st.text())
    | st.builds(DeviceEvent, st.none() | st.just("GPU-0"), st.just("XidError"), st.integers(), st.text(), st.booleans())
)


@given(st.lists(CONTENT))
def test_what_is_written_is_read_again(contents: list[Any]) -> None:
    entries = [Entry(float(place), content) for place, content in enumerate(contents)]
    info = Entry(0.0, DeviceInfo("GPU-0", 0, "H100", nvlink_peers=("GPU-1",)))
    lines = [render_header("580.1"), *(render(entry) for entry in (info, *entries))]
    recording = parse(lines)
    assert recording.driver_version == "580.1"
    assert recording.entries == (info, *entries)


Taped = tuple[RecordingWriter, Path, Callable[[], list[str]]]
"""A recording of the simulated node: its writer, its path, and its lines so far."""


@pytest.fixture
def taped(simulated: Simulated, tmp_path: Path) -> Iterator[Taped]:
    path = tmp_path / "node.jsonl"
    recorder = RecordingWriter(NvmlHardware(), path, max_bytes=2**20)
    recorder.open()
    recorder.driver_version()
    for slot in range(recorder.device_count()):
        recorder.identify(slot)
    yield recorder, path, lambda: path.read_text().splitlines()
    recorder.close()


UUIDS = [gpu.uuid for gpu in make_node("h100", 4).gpus]


def test_only_what_differs_is_written(simulated: Simulated, taped: Taped) -> None:
    recorder, _, lines = taped
    recorder.read(UUIDS[0])
    before = len(lines())
    for _ in range(5):
        recorder.read(UUIDS[0])
    assert len(lines()) == before
    simulated.edit(lambda node: node.with_gpu(0, temperature_celsius=77))
    recorder.read(UUIDS[0])
    assert len(lines()) == before + 1
    assert '"temperature_celsius":77' in lines()[-1]


def test_a_failure_and_what_ends_it_are_both_written(simulated: Simulated, taped: Taped) -> None:
    recorder, path, lines = taped
    recorder.read(UUIDS[0])
    simulated.edit(lambda node: node.lose(0))
    for _ in range(3):
        with pytest.raises(DeviceLostError):
            recorder.read(UUIDS[0])
    simulated.edit(lambda node: node.restore(0))
    recorder.read(UUIDS[0])
    kinds = [next(key for key in ("device", "reading", "error") if f'"{key}"' in line) for line in lines()[1:]]
    assert kinds[-3:] == ["reading", "error", "reading"]
    assert load(path).driver_version() == "580.95.05"


def test_a_full_disk_ends_the_recording_and_nothing_else(simulated: Simulated) -> None:
    recorder = RecordingWriter(NvmlHardware(), Path("/dev/full"), max_bytes=2**20)
    recorder.open()
    recorder.driver_version()
    assert recorder.device_count() == 4
    assert recorder.identify(0) == UUIDS[0]
    assert recorder.read(UUIDS[0]).memory_total_mib is not None
    recorder.close()


class FillingDisk(FileIO):
    """A file on a disk with little room: what doesn't fit whole is written in part, and the next write not at all."""

    room_bytes = 700

    def write(self, data: bytes) -> int:  # type: ignore[override] # a recorder writes bytes only
        if not self.room_bytes:
            raise OSError(ENOSPC, "No space left on device")
        written = super().write(data[: self.room_bytes])
        self.room_bytes -= written
        return written


def test_full_disk_leaves_a_playable_recording(
    simulated: Simulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "node.jsonl"
    recorder = RecordingWriter(NvmlHardware(), path, max_bytes=2**20)
    with monkeypatch.context() as patch, structlog.testing.capture_logs() as events:
        patch.setattr(Path, "open", lambda self, mode, **_: FillingDisk(self, mode.replace("b", "")))
        recorder.open()
        recorder.driver_version()
        for slot in range(recorder.device_count()):
            recorder.identify(slot)
        recorder.close()
    assert [event["event"] for event in events] == ["recording ended"]
    with path.open("rb") as lines:
        assert 0 < len(parse(lines).devices()) < 4


@pytest.mark.parametrize("spare_bytes", [0, 30])
def test_a_recording_that_is_as_large_as_it_may_be_ends_and_nothing_else(
    spare_bytes: int, simulated: Simulated, tmp_path: Path
) -> None:
    def record(path: Path, max_bytes: int) -> RecordingWriter:
        recorder = RecordingWriter(NvmlHardware(), path, max_bytes=max_bytes, clock=lambda: 0.0)
        recorder.open()
        recorder.driver_version()
        assert recorder.device_count() == 4
        recorder.identify(0)
        return recorder

    room = tmp_path / "room.jsonl"
    record(room, 2**20).close()
    path, most = tmp_path / "node.jsonl", room.stat().st_size + spare_bytes
    with structlog.testing.capture_logs() as events:
        recorder = record(path, most)
        for celsius in (50, 60, 70):
            simulated.edit(methodcaller("with_gpu", 0, temperature_celsius=celsius))
            assert recorder.read(UUIDS[0]).temperature_celsius == celsius
        recorder.close()
        recorder.open()
        assert recorder.device_count() == 4
        recorder.close()
    assert [event["event"] for event in events] == ["recording ended, maximum size reached"]
    assert path.read_bytes() == room.read_bytes(), "whole lines alone, and none after the one that had no room"
    assert load(path).driver_version() == "580.95.05"


async def test_a_sampler_cannot_distinguish_a_recording_from_the_hardware(simulated: Simulated, taped: Taped) -> None:
    recorder, path, _ = taped
    simulated.edit(lambda node: node.with_gpu(1, processes=(SimProcess(7, 100),), utilization_percent=55))
    for uuid in UUIDS:
        recorder.read_slow(uuid)
        recorder.read(uuid)
    recorder.close()

    async def seen(hardware: Hardware) -> tuple[str | None, list[tuple[DeviceInfo, Sample | None]]]:
        sampler = Sampler(hardware)
        await sampler.start()
        snapshot = sampler.snapshot()
        await sampler.close()
        return snapshot.driver_version, [(one.info, one.sample) for one in snapshot.devices]

    driver, real = await seen(NvmlHardware())
    same_driver, played = await seen(load(path))
    assert driver == same_driver
    for (info, sample), (same_info, same) in zip(real, played, strict=True):
        assert same_info == info
        changing = ("uuid", "memory_used_mib", "utilization_percent", "processes", "memory_total_mib", "mig_enabled")
        assert [getattr(same, name) for name in changing] == [getattr(sample, name) for name in changing]
