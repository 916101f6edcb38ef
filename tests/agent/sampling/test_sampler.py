import asyncio
import threading
import time
from dataclasses import replace

import pytest
import structlog

from gpufleet_agent.devices.base import (
    AccessLostError,
    DeviceAccessError,
    DeviceEvent,
    DeviceInfo,
    DeviceLostError,
    DeviceResetRequiredError,
    DriverNotLoadedError,
    HardwareUnavailableError,
    LibraryMismatchError,
    Reading,
)
from gpufleet_agent.sampling import read_schedule
from gpufleet_agent.sampling.health import HealthPolicy
from gpufleet_agent.sampling.sampler import Sampler
from gpufleet_agent.sampling.snapshot import HealthState
from gpufleet_testing.agent.sampling import (
    FAST,
    IMPATIENT,
    FakeHardware,
    FakeHardwareWithEvents,
    FakeHardwareWithNodes,
    until,
)

XID_79 = DeviceEvent("GPU-1", "XidError", 79, "fell off the bus", fault=True)


def codes(sampler: Sampler, index: int) -> list[str]:
    return [reason.code for reason in sampler.snapshot().devices[index].health.reasons]


def samples(sampler: Sampler, index: int) -> int:
    window = sampler.snapshot().devices[index].window
    return 0 if window is None else window.samples


async def test_start_returns_when_every_device_has_a_sample(fake: FakeHardwareWithEvents) -> None:

    sampler = Sampler(fake, timing=FAST)
    await sampler.start()
    snapshot = sampler.snapshot()
    assert [device.sample is not None for device in snapshot.devices] == [True] * 3
    assert snapshot.devices[0].sample is not None
    assert snapshot.devices[0].sample.process_count == 2
    assert snapshot.driver_version == "570.1"
    assert fake.threads == {"gpu-0", "gpu-1", "gpu-2"}
    await sampler.close()
    assert (fake.opened, fake.closed, fake.is_open) == (1, 1, False)


async def test_a_view_is_answered_while_every_device_is_stuck(fake: FakeHardwareWithEvents) -> None:
    sampler = Sampler(fake, timing=IMPATIENT)
    await sampler.start()
    fake.stuck = {f"GPU-{index}": threading.Event() for index in range(3)}
    await until(lambda: all(codes(sampler, index) == ["Unresponsive"] for index in range(3)))
    assert len(sampler.snapshot().devices) == 3
    await sampler.close()


async def test_a_stuck_device_delays_no_other_and_recovers(fake: FakeHardwareWithEvents) -> None:
    sampler = Sampler(fake, timing=IMPATIENT)
    await sampler.start()
    gate = fake.stuck["GPU-1"] = threading.Event()

    await until(lambda: [codes(sampler, index) for index in range(3)] == [[], ["Unresponsive"], []])
    frozen = samples(sampler, 1)
    others = samples(sampler, 0), samples(sampler, 2)
    await until(lambda: samples(sampler, 0) > others[0] + 20 and samples(sampler, 2) > others[1] + 20)
    assert samples(sampler, 1) == frozen

    del fake.stuck["GPU-1"]
    gate.set()
    await until(lambda: codes(sampler, 1) == [])
    assert fake.opened == 1
    await sampler.close()


async def test_event_loop_wakes_a_thread_for_the_devices_behind_a_stuck_one(
    fake: FakeHardwareWithEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_schedule, "_SPARE", 10**6)  # a thread that is not woken never reads again
    sampler = Sampler(fake, timing=FAST)
    await sampler.start()
    await until(lambda: samples(sampler, 2) > 10)
    gate = fake.stuck["GPU-0"] = threading.Event()
    others = samples(sampler, 1), samples(sampler, 2)
    await until(lambda: samples(sampler, 1) > others[0] + 20 and samples(sampler, 2) > others[1] + 20)
    gate.set()
    await sampler.close()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DeviceLostError("GPU-1", "GPU is lost"), "DeviceLost"),
        (DeviceResetRequiredError("GPU-1", "GPU requires restart"), "ResetRequired"),
        (DeviceAccessError("GPU-1", "unknown error"), "ReadFailed"),
    ],
)
async def test_a_failing_device_is_unhealthy_until_it_answers_again(
    fake: FakeHardwareWithEvents, error: Exception, code: str
) -> None:
    sampler = Sampler(fake, timing=replace(FAST, reopen_first=60, reopen_max=60))
    await sampler.start()
    version = sampler.snapshot().health_version
    fake.failures["GPU-1"] = error
    version = await sampler.changed(version)
    assert [codes(sampler, index) for index in range(3)] == [[], [code], []]
    del fake.failures["GPU-1"]
    await sampler.changed(version)
    assert sampler.snapshot().devices[1].health.state is HealthState.HEALTHY
    assert sampler.snapshot().dropped["ReadFailed"] > 0
    await sampler.close()


async def test_lost_device_reopens_the_driver(fake: FakeHardwareWithEvents) -> None:

    sampler = Sampler(fake, timing=FAST)
    await sampler.start()
    lost = fake.listed[1]
    fake.failures["GPU-1"] = DeviceLostError("GPU-1", "GPU is lost")
    fake.listed = [fake.listed[0], fake.listed[2]]
    await until(lambda: fake.opened >= 3)
    assert codes(sampler, 1) == ["DeviceLost"], "a device that is listed no longer is not forgotten"
    fake.listed.insert(1, lost)
    fake.failures.clear()
    await until(lambda: codes(sampler, 1) == [])
    opened = fake.opened
    before = samples(sampler, 1)
    await until(lambda: samples(sampler, 1) > before + 20)
    assert fake.opened == opened
    await sampler.close()
    assert not fake.closed_under_a_call


async def test_device_stuck_during_reopening_delays_no_other(
    fake: FakeHardwareWithEvents,
) -> None:

    sampler = Sampler(fake, timing=IMPATIENT)
    await sampler.start()
    gate = fake.stuck["GPU-0"] = threading.Event()
    fake.failures = dict.fromkeys(["GPU-0", "GPU-1", "GPU-2"], HardwareUnavailableError("uninitialized"))
    await until(lambda: sampler.snapshot().unavailable is not None)
    fake.failures.clear()
    gate.set()
    gate = fake.stuck["GPU-0"] = threading.Event()
    await until(lambda: fake.opened == 2 and [codes(sampler, index) for index in (1, 2)] == [[], []])
    assert codes(sampler, 0) != []
    assert sampler.snapshot().unlisted == 1
    del fake.stuck["GPU-0"]
    gate.set()
    await until(lambda: codes(sampler, 0) == [])
    assert sampler.snapshot().unlisted == 0
    await sampler.close()
    assert not fake.closed_under_a_call


async def test_the_driver_is_never_closed_under_a_stuck_call(fake: FakeHardwareWithEvents) -> None:

    sampler = Sampler(fake, timing=IMPATIENT)
    await sampler.start()
    gate = fake.stuck["GPU-0"] = threading.Event()
    await until(lambda: codes(sampler, 0) == ["Unresponsive"])
    fake.failures["GPU-1"] = DeviceLostError("GPU-1", "GPU is lost")
    await until(lambda: codes(sampler, 1) == ["DeviceLost"])
    before = samples(sampler, 2)
    await until(lambda: samples(sampler, 2) > before + 40)
    assert fake.opened == 1
    del fake.stuck["GPU-0"]
    gate.set()
    await until(lambda: fake.opened == 2)
    await sampler.close()
    assert not fake.closed_under_a_call


async def test_an_event_that_is_a_fault_shows_at_once(fake: FakeHardwareWithEvents) -> None:
    sampler = Sampler(fake, timing=FAST, policy=HealthPolicy(quiet_seconds=0.1))
    await sampler.start()
    version = sampler.snapshot().health_version
    fake.events += [replace(XID_79, code=13, fault=False), replace(XID_79, uuid="GPU-9"), XID_79]
    version = await sampler.changed(version)
    assert [codes(sampler, index) for index in range(3)] == [[], ["XidError"], []]
    assert [(count.code, count.count) for count in sampler.snapshot().devices[1].events] == [(13, 1), (79, 1)]
    await sampler.changed(version)
    assert codes(sampler, 1) == [], "gone after the quiet time"
    await sampler.close()


async def test_a_failing_event_source_is_no_busy_loop(fake: FakeHardwareWithEvents) -> None:
    sampler = Sampler(fake, timing=FAST)
    await sampler.start()
    with structlog.testing.capture_logs() as logged:
        fake.events += [DeviceAccessError("events", "waiting for events: Unknown Error (999)")] * 3
        waits, begun = fake.waits, time.monotonic()
        await until(lambda: fake.waits >= waits + 5)
        assert time.monotonic() - begun >= 3 * FAST.event_wait
        await sampler.close()
    told = [(entry["log_level"], entry["event"]) for entry in logged if "event wait" in entry["event"]]
    failed = "event wait failed"
    assert told == [("warning", failed), ("debug", failed), ("debug", failed), ("info", "event wait works again")]
    assert "(999)" in next(entry["error"] for entry in logged if entry["event"] == failed)


async def test_impossible_sample_is_dropped_and_sampling_continues(fake: FakeHardwareWithEvents) -> None:
    sampler = Sampler(fake, timing=FAST)
    await sampler.start()
    fake.answers["GPU-1"] = Reading(uuid="GPU-1", utilization_percent=250)
    await until(lambda: sampler.snapshot().dropped.get("Over100Percent", 0) >= 3)
    snapshot = sampler.snapshot()
    assert snapshot.devices[1].sample is not None
    assert snapshot.devices[1].sample.utilization_percent is None
    assert snapshot.devices[1].sample_age_seconds is not None
    assert snapshot.devices[0].sample_age_seconds is not None
    assert snapshot.devices[1].sample_age_seconds > snapshot.devices[0].sample_age_seconds
    assert snapshot.devices[1].health.state is HealthState.HEALTHY
    await sampler.close()


async def test_no_driver_is_a_calm_state_that_ends_when_one_comes(fake: FakeHardwareWithEvents) -> None:

    fake.opening = [HardwareUnavailableError("driver not loaded")] * 5
    sampler = Sampler(fake, timing=FAST)
    await sampler.start()
    snapshot = sampler.snapshot()
    assert (snapshot.unavailable, snapshot.devices) == ("driver not loaded", ())
    await until(lambda: len(sampler.snapshot().devices) == 3)
    assert sampler.snapshot().unavailable is None
    await until(lambda: all(samples(sampler, index) > 0 for index in range(3)))
    await sampler.close()
    assert fake.opened == 1


async def test_a_node_without_gpus_is_a_calm_state(fake: FakeHardware) -> None:

    fake.listed = []
    sampler = Sampler(fake, timing=FAST)
    await sampler.start()
    assert sampler.snapshot().devices == ()
    assert sampler.snapshot().unavailable is None
    await sampler.close()
    assert not fake.is_open


async def test_a_driver_restart_is_survived_with_the_devices_past(fake: FakeHardwareWithEvents) -> None:

    sampler = Sampler(fake, timing=FAST)
    await sampler.start()
    fake.events.append(XID_79)
    await until(lambda: codes(sampler, 1) == ["XidError"])
    fake.opening = [DriverNotLoadedError("driver not loaded")] * 3
    fake.failures = dict.fromkeys(["GPU-0", "GPU-1", "GPU-2"], DriverNotLoadedError("uninitialized"))
    await until(lambda: sampler.snapshot().unavailable == "driver not loaded")
    assert codes(sampler, 0) == ["DriverUnavailable"]
    fake.failures.clear()
    await until(lambda: all(codes(sampler, index) == [] for index in range(3)))
    assert sampler.snapshot().devices[1].events[0].count == 1
    assert fake.opened == 2
    await sampler.close()
    assert not fake.closed_under_a_call


async def test_new_device_is_found_when_the_driver_is_reopened(fake: FakeHardwareWithEvents) -> None:
    sampler = Sampler(fake, timing=FAST)
    await sampler.start()
    fake.listed.append(DeviceInfo("GPU-3", 3, "Fake"))
    fake.failures["GPU-0"] = HardwareUnavailableError("uninitialized")
    await until(lambda: sampler.snapshot().unavailable is not None)
    fake.failures.clear()
    await until(lambda: len(sampler.snapshot().devices) == 4 and samples(sampler, 3) > 0)
    await sampler.close()


async def test_replaced_driver_ends_the_process(fake: FakeHardwareWithEvents) -> None:

    sampler = Sampler(fake, timing=FAST)
    await sampler.start()
    fake.failures["GPU-2"] = LibraryMismatchError("driver/library version mismatch")
    async with asyncio.timeout(10):
        assert isinstance(await sampler.failed(), LibraryMismatchError)
    await sampler.close()
    assert not fake.is_open


async def test_one_inaccessible_device_is_a_fault_and_all_end_the_process(
    fake: FakeHardwareWithEvents,
) -> None:
    sampler = Sampler(fake, timing=FAST)
    await sampler.start()
    fake.failures["GPU-0"] = DeviceAccessError("GPU-0", "unknown error")
    await until(lambda: sampler.snapshot().dropped.get("ReadFailed", 0) > 20)
    for uuid in ("GPU-1", "GPU-2"):
        fake.failures[uuid] = DeviceAccessError(uuid, "unknown error")
    async with asyncio.timeout(10):
        assert isinstance(await sampler.failed(), AccessLostError)
    await sampler.close()


async def test_process_continues_while_device_nodes_can_be_used() -> None:
    lost: list[str] = []
    fake_with_nodes = FakeHardwareWithNodes(lost)
    sampler = Sampler(fake_with_nodes, timing=FAST)
    await sampler.start()
    for uuid in ("GPU-0", "GPU-1", "GPU-2"):
        fake_with_nodes.failures[uuid] = DeviceAccessError(uuid, "memory: Unknown Error (999)")
    await until(lambda: all(device.access_failures > 10 for device in sampler._session._devices))  # type: ignore[union-attr] # started
    assert [codes(sampler, index) for index in range(3)] == [["ReadFailed"]] * 3
    lost.append("/dev/nvidia1")
    async with asyncio.timeout(10):
        failure = await sampler.failed()
    assert isinstance(failure, AccessLostError)
    assert "/dev/nvidia1" in str(failure)
    await sampler.close()


async def test_unexpected_error_is_raised(fake: FakeHardwareWithEvents) -> None:
    sampler = Sampler(fake, timing=FAST)
    await sampler.start()
    fake.failures["GPU-0"] = ZeroDivisionError("a defect")
    async with asyncio.timeout(10):
        assert isinstance(await sampler.failed(), ZeroDivisionError)
    await sampler.close()
