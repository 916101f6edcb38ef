import asyncio
from contextlib import suppress

import pytest

from gpufleet_agent.plugin.in_flight import InFlightAllocation
from gpufleet_agent.plugin.types import Rejection, RejectionReason, UnmanagedAllocation
from gpufleet_testing.agent.virtual_time import in_virtual_time

ANSWER = UnmanagedAllocation(("GPU-0",))


def make() -> InFlightAllocation:
    return InFlightAllocation(expiry_seconds=0.1, settle_seconds=0.02)


async def is_quiet(admission: InFlightAllocation) -> bool:
    """Whether a listing of our own would get its moment without waiting."""
    with suppress(TimeoutError):
        async with asyncio.timeout(0), admission.quiet():
            return True
    return False


async def test_the_answer_is_taken_once() -> None:
    admission = make()
    admission.answered(await admission.begin(), ANSWER)
    assert admission.take() == ANSWER
    assert admission.take() is None


async def test_no_listing_from_the_question_until_the_kubelet_has_entered_the_devices() -> None:
    admission = make()
    assert await is_quiet(admission)
    ticket = await admission.begin()
    assert not await is_quiet(admission)
    admission.answered(ticket, ANSWER)
    assert not await is_quiet(admission)
    admission.take()
    assert not await is_quiet(admission), "the kubelet enters the devices after it has our answer"
    async with asyncio.timeout(1), admission.quiet():
        pass


async def test_after_a_refusal_there_is_nothing_to_wait_for() -> None:
    admission = make()
    admission.answered(await admission.begin(), Rejection(RejectionReason.DEVICE_HELD, "no"))
    admission.take()
    admission.refused(admission.ticket)
    assert await is_quiet(admission)


async def test_an_allocation_waits_for_the_listing_that_is_under_way_and_no_other_begins() -> None:
    admission = make()
    async with admission.quiet():
        begun = asyncio.create_task(admission.begin())
        await asyncio.sleep(0)
        assert admission.in_flight
        assert not begun.done()
        next_listing = asyncio.create_task(is_quiet(admission))
        await asyncio.sleep(0)
    await begun
    assert not await next_listing


async def test_listings_go_on_after_an_allocation_that_never_ends_and_its_answer_is_void() -> None:
    admission = make()
    admission.answered(await admission.begin(), ANSWER)
    async with asyncio.timeout(1), admission.quiet():
        assert admission.take() is None


async def test_a_new_question_voids_the_answer_to_the_one_before() -> None:
    admission = make()
    abandoned = await admission.begin()
    current = await admission.begin()
    admission.answered(abandoned, ANSWER)
    admission.abandon(abandoned)
    assert admission.in_flight
    assert admission.take() is None
    admission.answered(current, ANSWER)
    assert admission.take() == ANSWER


@pytest.mark.parametrize("listings", [1, 3])
async def test_a_cancelled_listing_lets_allocations_through(listings: int) -> None:
    admission = make()

    async def hang() -> None:
        async with admission.quiet():
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(hang()) for _ in range(listings)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    async with asyncio.timeout(1):
        await admission.begin()


async def test_what_was_handed_over_is_given_again_in_part_until_the_next_question() -> None:
    admission = make()
    await admission.begin()
    admission.handed(UnmanagedAllocation(("GPU-0", "GPU-1")))
    assert admission.again(frozenset({"GPU-1"})) == UnmanagedAllocation(("GPU-1",))
    assert admission.again(frozenset({"GPU-0", "GPU-1"})) == UnmanagedAllocation(("GPU-0", "GPU-1"))
    assert admission.again(frozenset({"GPU-1", "GPU-2"})) is None
    assert admission.again(frozenset()) is None
    await admission.begin()
    assert admission.again(frozenset({"GPU-1"})) is None


async def test_slots_are_given_again_as_slots() -> None:
    admission = make()
    admission.handed(UnmanagedAllocation(("GPU-0", "GPU-1"), ("GPU-0::4", "GPU-1::2")))
    assert admission.again(frozenset({"GPU-1::2"})) == UnmanagedAllocation(("GPU-1",), ("GPU-1::2",))
    assert admission.again(frozenset({"GPU-1::3"})) is None
    assert admission.again(frozenset({"GPU-1"})) is None


@in_virtual_time
async def test_what_was_handed_over_is_forgotten_in_time_and_a_later_one_is_not_forgotten_with_it() -> None:
    admission = make()
    admission.handed(UnmanagedAllocation(("GPU-0",)))
    await asyncio.sleep(0.06)
    admission.handed(UnmanagedAllocation(("GPU-1",)))
    await asyncio.sleep(0.06)
    assert admission.again(frozenset({"GPU-1"})) is not None
    await asyncio.sleep(0.06)
    assert admission.again(frozenset({"GPU-1"})) is None
