import asyncio
import gc
import threading
import weakref
from dataclasses import replace

import pytest

from gpufleet_agent.devices.base import HardwareUnavailableError, LibraryMismatchError
from gpufleet_agent.sampling.errors import SamplerClosedError
from gpufleet_agent.sampling.sampler import Sampler
from gpufleet_testing.agent.sampling import FAST, IMPATIENT, FakeHardwareWithEvents, until


def gpu_threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("gpu-"))


async def threads_gone() -> None:
    await until(lambda: not gpu_threads())


async def test_initialization_failure_leaves_nothing_half_started(fake: FakeHardwareWithEvents) -> None:

    fake.opening = [LibraryMismatchError("driver/library version mismatch")]
    sampler = Sampler(fake, timing=FAST)
    with pytest.raises(LibraryMismatchError):
        await sampler.start()
    with pytest.raises(SamplerClosedError):
        await sampler.start()
    await threads_gone()
    assert not fake.is_open


async def test_hardware_that_opens_but_does_not_count_is_closed_again(fake: FakeHardwareWithEvents) -> None:

    fake.counting = [LibraryMismatchError("driver/library version mismatch")]
    with pytest.raises(LibraryMismatchError):
        await Sampler(fake, timing=FAST).start()
    await threads_gone()
    assert (fake.opened, fake.is_open) == (1, False)


async def test_a_driver_that_never_answers_does_not_hold_up_the_start(fake: FakeHardwareWithEvents) -> None:
    fake.open_gate = threading.Event()
    sampler = Sampler(fake, timing=replace(FAST, opening=0.3))
    async with asyncio.timeout(15):
        await sampler.start()
    assert sampler.snapshot().unavailable == "the driver has not responded for 0.3 s"
    fake.open_gate.set()
    await until(lambda: len(sampler.snapshot().devices) == 3)
    assert sampler.snapshot().unavailable is None
    await sampler.close()


async def test_close_ends_threads_waiters_and_recording(fake: FakeHardwareWithEvents) -> None:

    sampler = Sampler(fake, timing=FAST)
    await sampler.start()
    waiter = asyncio.create_task(sampler.changed(sampler.snapshot().health_version))
    await asyncio.sleep(0)
    await sampler.close()
    with pytest.raises(SamplerClosedError):
        await waiter
    with pytest.raises(SamplerClosedError):
        await sampler.changed(-1)
    reads, kept = fake.reads, sampler.snapshot().samples
    await sampler.close()
    await threads_gone()
    assert (fake.reads, sampler.snapshot().samples) == (reads, kept)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
    assert (fake.closed, fake.is_open, fake.closed_under_a_call) == (1, False, False)


async def test_close_waits_for_a_read_in_flight_and_drops_its_answer(fake: FakeHardwareWithEvents) -> None:

    sampler = Sampler(fake, timing=FAST)
    await sampler.start()
    gate = fake.stuck["GPU-0"] = threading.Event()
    await until(lambda: "GPU-0" in fake.blocked)
    closing = asyncio.create_task(sampler.close())
    await until(lambda: sampler._registry.closed)
    kept = sampler.snapshot().samples
    assert fake.closed == 0
    gate.set()
    await closing
    assert fake.closed == 1
    assert sampler.snapshot().samples == kept
    assert not fake.closed_under_a_call


async def test_close_leaves_stuck_call_and_open_hardware(fake: FakeHardwareWithEvents) -> None:

    sampler = Sampler(fake, timing=IMPATIENT)
    await sampler.start()
    fake.stuck["GPU-0"] = threading.Event()
    await until(lambda: "Unresponsive" in [r.code for r in sampler.snapshot().devices[0].health.reasons])
    async with asyncio.timeout(15):
        await sampler.close()
    assert len(gpu_threads()) == 1, "the thread of any device may be in the call"
    assert fake.is_open
    assert not fake.closed_under_a_call


async def test_closing_what_was_never_started_is_fine(fake: FakeHardwareWithEvents) -> None:

    sampler = Sampler(fake, timing=FAST)
    await sampler.close()
    with pytest.raises(SamplerClosedError):
        await sampler.start()
    with pytest.raises(RuntimeError, match="never started"):
        await sampler.failed()
    assert fake.opened == 0


async def test_a_start_cancelled_after_any_number_of_turns_undoes_itself(fake: FakeHardwareWithEvents) -> None:
    """The tasks beneath `start` await in many places; cancel after each number of turns of the loop until it's up."""

    async def cancel_after(turns: int) -> bool:
        sampler = Sampler(fake, timing=FAST)
        starting = asyncio.create_task(sampler.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        started = starting.done()
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await sampler.close()
        await threads_gone()
        assert not fake.is_open
        return started

    turns = 0
    while not await cancel_after(turns):
        turns += 1
    assert not fake.closed_under_a_call


async def test_cancelled_close_completes(fake: FakeHardwareWithEvents) -> None:
    sampler = Sampler(fake, timing=FAST)
    await sampler.start()
    closing = asyncio.create_task(sampler.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await until(lambda: not fake.is_open)
    await sampler.close()
    await threads_gone()


async def test_closing_while_the_driver_is_away_ends_the_retries(fake: FakeHardwareWithEvents) -> None:
    fake.opening = [HardwareUnavailableError("driver not loaded")] * 1000
    sampler = Sampler(fake, timing=FAST)
    await sampler.start()
    await sampler.close()
    left = len(fake.opening)
    await threads_gone()
    assert len(fake.opening) == left


def test_start_and_close_over_and_over_keeps_no_memory(fake: FakeHardwareWithEvents) -> None:
    async def once() -> weakref.ref[Sampler]:
        sampler = Sampler(fake, timing=FAST)
        await sampler.start()
        await sampler.close()
        return weakref.ref(sampler)

    async def main() -> list[weakref.ref[Sampler]]:
        return [await once() for _ in range(10)]

    kept = asyncio.run(main())
    gc.collect()
    assert [sampler for sampler in kept if sampler() is not None] == []
    assert (fake.opened, fake.closed) == (10, 10)


async def test_second_start_is_an_error(fake: FakeHardwareWithEvents) -> None:

    sampler = Sampler(fake, timing=FAST)
    await sampler.start()
    with pytest.raises(RuntimeError, match="already started"):
        await sampler.start()
    await sampler.close()
    assert fake.opened == 1
