import asyncio
from contextlib import suppress

import pytest

from gpufleet_agent.plugin.in_flight import InFlightAllocation
from gpufleet_agent.plugin.types import Rejection, RejectionReason, UnmanagedAllocation
from gpufleet_testing.agent.virtual_time import in_virtual_time

ANSWER = UnmanagedAllocation(("GPU-0",))


def make() -> InFlightAllocation:
    return InFlightAllocation(expiry_seconds=0.1, settle_seconds=0.02)


async def is_idle(in_flight: InFlightAllocation) -> bool:
    """Whether a listing of our own would get its moment without waiting."""
    with suppress(TimeoutError):
        async with asyncio.timeout(0), in_flight.idle():
            return True
    return False


async def test_result_is_taken_once() -> None:
    in_flight = make()
    in_flight.set_result(await in_flight.begin(), ANSWER)
    assert in_flight.take_result() == ANSWER
    assert in_flight.take_result() is None


@in_virtual_time
async def test_no_poll_until_the_kubelet_has_recorded_the_devices() -> None:
    in_flight = make()
    assert await is_idle(in_flight)
    ticket = await in_flight.begin()
    assert not await is_idle(in_flight)
    in_flight.set_result(ticket, ANSWER)
    assert not await is_idle(in_flight)
    in_flight.take_result()
    assert not await is_idle(in_flight), "the kubelet enters the devices after it has our answer"
    async with asyncio.timeout(20), in_flight.idle():
        pass


async def test_rejected_allocation_ends_immediately() -> None:
    in_flight = make()
    in_flight.set_result(await in_flight.begin(), Rejection(RejectionReason.DEVICE_HELD, "no"))
    in_flight.take_result()
    in_flight.end(in_flight.ticket)
    assert await is_idle(in_flight)


async def test_allocation_waits_for_a_running_poll_and_blocks_the_next() -> None:
    in_flight = make()
    async with in_flight.idle():
        begun = asyncio.create_task(in_flight.begin())
        await asyncio.sleep(0)
        assert in_flight.active
        assert not begun.done()
        next_listing = asyncio.create_task(is_idle(in_flight))
        await asyncio.sleep(0)
    await begun
    assert not await next_listing


@in_virtual_time
async def test_polls_continue_after_an_allocation_that_expired() -> None:
    in_flight = make()
    in_flight.set_result(await in_flight.begin(), ANSWER)
    async with asyncio.timeout(20), in_flight.idle():
        assert in_flight.take_result() is None


@in_virtual_time
async def test_allocation_expires_only_after_it_has_its_result() -> None:
    in_flight = make()
    ticket = await in_flight.begin()
    await asyncio.sleep(1)
    assert in_flight.active, "the reservations are being read"
    in_flight.set_result(ticket, ANSWER)
    assert in_flight.active
    await asyncio.sleep(1)
    assert await is_idle(in_flight)
    assert in_flight.take_result() is None


@in_virtual_time
async def test_no_poll_while_device_files_are_put_in_place() -> None:
    in_flight = make()
    in_flight.set_result(await in_flight.begin(), ANSWER)
    assert in_flight.take_result() == ANSWER
    with in_flight.preparing():
        await asyncio.sleep(1)
        assert in_flight.active
    assert in_flight.active
    await asyncio.sleep(1)
    assert await is_idle(in_flight)


async def test_cancelled_allocation_lets_polls_through() -> None:
    in_flight = make()
    async with in_flight.idle():
        begun = asyncio.create_task(in_flight.begin())
        await asyncio.sleep(0)
        begun.cancel()
        with suppress(asyncio.CancelledError):
            await begun
    assert await is_idle(in_flight)


async def test_new_allocation_drops_the_result_of_the_one_before() -> None:
    in_flight = make()
    abandoned = await in_flight.begin()
    current = await in_flight.begin()
    in_flight.set_result(abandoned, ANSWER)
    in_flight.end(abandoned)
    assert in_flight.active
    assert in_flight.take_result() is None
    in_flight.set_result(current, ANSWER)
    assert in_flight.take_result() == ANSWER


@pytest.mark.parametrize("listings", [1, 3])
async def test_a_cancelled_listing_lets_allocations_through(listings: int) -> None:
    in_flight = make()

    async def hang() -> None:
        async with in_flight.idle():
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(hang()) for _ in range(listings)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    async with asyncio.timeout(20):
        await in_flight.begin()


async def test_allocation_is_reusable_in_part_until_the_next_one() -> None:
    in_flight = make()
    await in_flight.begin()
    in_flight.keep_for_reuse(UnmanagedAllocation(("GPU-0", "GPU-1")))
    assert in_flight.reuse(frozenset({"GPU-1"})) == UnmanagedAllocation(("GPU-1",))
    assert in_flight.reuse(frozenset({"GPU-0", "GPU-1"})) == UnmanagedAllocation(("GPU-0", "GPU-1"))
    assert in_flight.reuse(frozenset({"GPU-1", "GPU-2"})) is None
    assert in_flight.reuse(frozenset()) is None
    await in_flight.begin()
    assert in_flight.reuse(frozenset({"GPU-1"})) is None


async def test_slots_are_reused_as_slots() -> None:
    in_flight = make()
    in_flight.keep_for_reuse(UnmanagedAllocation(("GPU-0", "GPU-1"), ("GPU-0::4", "GPU-1::2")))
    assert in_flight.reuse(frozenset({"GPU-1::2"})) == UnmanagedAllocation(("GPU-1",), ("GPU-1::2",))
    assert in_flight.reuse(frozenset({"GPU-1::3"})) is None
    assert in_flight.reuse(frozenset({"GPU-1"})) is None


@in_virtual_time
async def test_reusable_allocation_expires_independently_of_a_later_one() -> None:
    in_flight = make()
    in_flight.keep_for_reuse(UnmanagedAllocation(("GPU-0",)))
    await asyncio.sleep(0.06)
    in_flight.keep_for_reuse(UnmanagedAllocation(("GPU-1",)))
    await asyncio.sleep(0.06)
    assert in_flight.reuse(frozenset({"GPU-1"})) is not None
    await asyncio.sleep(0.06)
    assert in_flight.reuse(frozenset({"GPU-1"})) is None
