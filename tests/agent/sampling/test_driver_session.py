"""Edge cases while the driver is reopened."""

import asyncio
import threading
import time
from dataclasses import replace

import pytest

from gpufleet_agent.devices.base import (
    DeviceEvent,
    DeviceLostError,
    DriverNotLoadedError,
    ProcessMustRestartError,
    Recovery,
)
from gpufleet_agent.sampling.driver_session import DriverSession
from gpufleet_agent.sampling.sampler import Sampler
from gpufleet_testing.agent.sampling import FAST, IMPATIENT, FakeHardwareWithEvents, until


async def test_event_during_reopening_is_not_lost(
    fake: FakeHardwareWithEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait for it is in flight, and those who waited for the wait have left."""
    waiting, left = threading.Event(), threading.Event()

    def wait_event(seconds: float) -> DeviceEvent | None:
        if not left.is_set():
            waiting.set()
            assert left.wait(20)
            return DeviceEvent("GPU-1", "XidError", 79, "XID 79", fault=True, recovery=Recovery.RESET)
        time.sleep(seconds)
        return None

    quiet = DriverSession.drain

    async def leaving(session: DriverSession) -> bool:
        left.set()
        return await quiet(session)

    monkeypatch.setattr(fake, "wait_event", wait_event)
    monkeypatch.setattr(DriverSession, "drain", leaving)

    sampler = Sampler(fake, timing=FAST)
    await sampler.start()
    assert waiting.wait(20)
    fake.failures["GPU-0"] = DeviceLostError("GPU-0", "gone")
    await until(lambda: fake.opened > 1)
    assert [reason.code for reason in sampler.snapshot().devices[1].health.reasons] == ["XidError"]
    await sampler.close()


async def test_pending_events_are_read_before_the_driver_is_closed(
    fake: FakeHardwareWithEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = DriverSession.drain

    async def three_more(session: DriverSession) -> bool:
        fake.events += [DeviceEvent(f"GPU-{i}", "XidError", 79, "XID 79", fault=True) for i in (1, 2, 1)]
        return await quiet(session)

    monkeypatch.setattr(DriverSession, "drain", three_more)

    sampler = Sampler(fake, timing=FAST)
    await sampler.start()
    fake.failures["GPU-0"] = DeviceLostError("GPU-0", "gone")
    await until(lambda: fake.opened > 1)
    assert [sum(event.count for event in device.events) for device in sampler.snapshot().devices] == [0, 2, 1]
    await sampler.close()


async def test_stuck_call_after_driver_is_gone_ends_process(
    fake: FakeHardwareWithEvents,
) -> None:
    fake.stuck["GPU-0"] = threading.Event()
    sampler = Sampler(fake, timing=replace(IMPATIENT, deadline=0.05))
    fake.failures["GPU-1"] = DriverNotLoadedError("uninitialized")
    async with asyncio.timeout(20):
        with pytest.raises(ProcessMustRestartError, match="stuck"):
            await sampler.start()
    assert not fake.closed_under_a_call


async def test_what_devices_say_of_themselves_later_is_taken_over(fake: FakeHardwareWithEvents) -> None:
    sampler = Sampler(fake, timing=FAST)
    await sampler.start()
    fake.identified = {
        **fake.identified,
        "GPU-1": replace(fake.identified["GPU-1"], nvlink_peers=("GPU-2",)),
    }
    await until(lambda: sampler.snapshot().devices[1].info.nvlink_peers == ("GPU-2",))
    assert fake.opened == 1
    await sampler.close()
