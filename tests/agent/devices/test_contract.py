"""What every implementation of `Hardware` must do, asked of each: NVML on simulated GPUs, and a recording."""

import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from gpufleet_agent.devices import base
from gpufleet_agent.devices.base import (
    DeviceLostError,
    DeviceReadError,
    DeviceResetRequiredError,
    EventSource,
    Hardware,
    HardwareUnavailableError,
    Reading,
    SlowReading,
    UnknownDeviceError,
)
from gpufleet_agent.devices.nvml import NvmlHardware
from gpufleet_agent.devices.recording.format import Entry, Failure, Recording, parse
from gpufleet_agent.devices.recording.player import RecordingPlayer
from gpufleet_agent.devices.recording.writer import RecordingWriter
from gpufleet_agent.sampling.validate import validate, validate_facts
from gpufleet_simgpu.presets import make_node
from gpufleet_testing.simulated import Simulated

UUIDS = [gpu.uuid for gpu in make_node("h100", 4).gpus]


class Rig(Protocol):
    """An implementation, and ways to make its hardware fail."""

    hardware: Hardware

    def fail(self, uuid: str, kind: str) -> None: ...

    def heal(self) -> None: ...

    def take_driver_away(self) -> None: ...


class Nvml:
    codes = {"DeviceLost": 15, "ResetRequired": 16, "ReadFailed": 14}  # noqa: RUF012 - never changed

    def __init__(self, simulated: Simulated) -> None:
        self.simulated = simulated
        self.hardware: Hardware = NvmlHardware()

    def fail(self, uuid: str, kind: str) -> None:
        self.simulated.edit(lambda node: node.with_fail(UUIDS.index(uuid), "all", self.codes[kind]))

    def heal(self) -> None:
        self.simulated.write(make_node("h100", 4))

    def take_driver_away(self) -> None:
        from dataclasses import replace  # noqa: PLC0415 - of use here alone

        self.simulated.edit(lambda node: replace(node, error=9))


class Recorded:
    """The same GPUs, recorded. Failures are lines, played by a clock that advances only on request."""

    def __init__(self, recording: Recording) -> None:
        self.good = recording
        self.now = 0.0
        self._play(())

    def _play(self, more: tuple[Failure, ...]) -> None:
        last = self.good.entries[-1].at
        entries = (*self.good.entries, *(Entry(last, failure) for failure in more))
        fresh = RecordingPlayer(Recording(self.good.driver_version, entries), clock=lambda: self.now, sleep=self._wait)
        self.now = last
        if hasattr(self, "hardware"):
            fresh._began, fresh._listed = 0.0, self.hardware._listed
            self.hardware.__dict__.update(fresh.__dict__)
        else:
            self.hardware: RecordingPlayer = fresh
            fresh._began = 0.0

    def _wait(self, seconds: float) -> None:
        self.now += seconds

    def fail(self, uuid: str, kind: str) -> None:
        self._play((Failure(uuid, kind, "made to fail"),))

    def heal(self) -> None:
        self._play(())

    def take_driver_away(self) -> None:
        self._play((Failure(None, "Unavailable"),))


def record(path: Path) -> Recording:
    """Two rounds of everything that NVML says."""
    recorder = RecordingWriter(NvmlHardware(), path, max_bytes=2**20)
    recorder.open()
    recorder.driver_version()
    for slot in range(recorder.device_count()):
        recorder.identify(slot)
    for _ in range(2):
        for uuid in UUIDS:
            recorder.read(uuid)
            recorder.read_slow(uuid)
    recorder.close()
    return parse(path.read_bytes().splitlines())


@pytest.fixture(params=["nvml", "recorded"])
def rig(request: pytest.FixtureRequest, simulated: Simulated, tmp_path: Path) -> Iterator[Any]:
    made = Nvml(simulated) if request.param == "nvml" else Recorded(record(tmp_path / "node.jsonl"))
    yield made
    made.hardware.close()


def opened(rig: Rig) -> Hardware:
    rig.hardware.open()
    for slot in range(rig.hardware.device_count()):
        rig.hardware.identify(slot)
    return rig.hardware


def test_it_may_be_closed_at_any_time(rig: Rig) -> None:
    rig.hardware.close()
    opened(rig).close()
    rig.hardware.close()
    assert rig.hardware.devices() == ()


def test_devices_are_listed_once_they_said_who_they_are(rig: Rig) -> None:
    rig.hardware.open()
    assert rig.hardware.device_count() == 4
    assert rig.hardware.devices() == ()
    assert rig.hardware.identify(2) == UUIDS[2]
    assert rig.hardware.identify(0) == UUIDS[0]
    assert [info.uuid for info in rig.hardware.devices()] == [UUIDS[0], UUIDS[2]]
    assert [info.index for info in rig.hardware.devices()] == [0, 2]
    assert rig.hardware.driver_version() == "580.95.05"


def test_reopening_drops_the_known_devices(rig: Rig) -> None:
    opened(rig).open()
    assert rig.hardware.devices() == ()
    assert len(opened(rig).devices()) == 4


def test_what_is_read_can_be_believed(rig: Rig) -> None:
    hardware = opened(rig)
    for info in hardware.devices():
        reading, slow = hardware.read(info.uuid), hardware.read_slow(info.uuid)
        facts, dropped = validate_facts(slow, registered={info.uuid})
        assert dropped == ()
        sample = validate(reading, registered={info.uuid}, taken_at=1.0, facts=facts)
        assert sample.memory_total_mib == info.memory_total_mib == 81_559
        assert sample.process_count == 0
        assert sample.processes == ()
        for name in Reading.__dataclass_fields__:
            value = getattr(reading, name)
            assert not isinstance(value, float) or math.isfinite(value)


def test_unlisted_device_is_unknown(rig: Rig) -> None:
    hardware = opened(rig)
    for ask in (hardware.read, hardware.read_slow):
        with pytest.raises(UnknownDeviceError, match="GPU-none"):
            ask("GPU-none")


@pytest.mark.parametrize(
    ("kind", "error"),
    [("DeviceLost", DeviceLostError), ("ResetRequired", DeviceResetRequiredError), ("ReadFailed", DeviceReadError)],
)
def test_one_device_fails_and_the_others_answer(rig: Rig, kind: str, error: type[Exception]) -> None:
    hardware = opened(rig)
    rig.fail(UUIDS[1], kind)
    with pytest.raises(error, match=UUIDS[1]):
        hardware.read(UUIDS[1])
    with pytest.raises(error):
        hardware.read_slow(UUIDS[1])
    assert hardware.read(UUIDS[0]).memory_total_mib is not None
    rig.heal()
    assert hardware.read(UUIDS[1]).memory_total_mib is not None


def test_without_a_driver_nothing_answers_and_it_can_come_back(rig: Rig) -> None:
    hardware = opened(rig)
    rig.take_driver_away()
    calls: list[Callable[[], object]] = [hardware.device_count, hardware.open, lambda: hardware.read(UUIDS[0])]
    for call in calls[:2]:
        with pytest.raises(HardwareUnavailableError):
            call()
    hardware.close()
    rig.heal()
    assert len(opened(rig).devices()) == 4


def test_waiting_for_events_ends_after_its_time(rig: Rig) -> None:
    hardware = opened(rig)
    assert isinstance(hardware, EventSource)
    assert hardware.wait_event(0.05) is None


def test_different_devices_are_asked_at_the_same_time(rig: Rig) -> None:
    hardware = opened(rig)
    wrong: list[str] = []
    barrier = threading.Barrier(len(UUIDS))

    def ask(uuid: str) -> None:
        barrier.wait()
        for _ in range(50):
            answers: tuple[Reading, SlowReading] = hardware.read(uuid), hardware.read_slow(uuid)
            wrong.extend(answer.uuid for answer in answers if answer.uuid != uuid)

    threads = [threading.Thread(target=ask, args=(uuid,)) for uuid in UUIDS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_protocol_names_no_vendors_library() -> None:
    text = Path(base.__file__).read_text(encoding="utf-8").lower()
    assert [word for word in ("nvml", "nvidia", "cuda", "rocm", "amdsmi") if word in text] == []
