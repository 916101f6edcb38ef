import asyncio

from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_testing.agent.virtual_time import in_virtual_time


@in_virtual_time
async def test_wait_with_a_limit_ends_at_the_change_or_at_the_limit() -> None:
    signal, loop = VersionSignal(), asyncio.get_running_loop()
    began = loop.time()
    assert not await signal.wait_for(0, 3)
    assert loop.time() == began + 3
    loop.call_later(1, signal.notify)
    assert await signal.wait_for(0, 3)
    assert loop.time() == began + 4
    assert await signal.wait_for(0, 3), "the change was before the wait"
    assert loop.time() == began + 4


@in_virtual_time
async def test_limit_of_one_wait_ends_no_other() -> None:
    signal = VersionSignal()
    endless = asyncio.create_task(signal.wait(0))
    longer = asyncio.create_task(signal.wait_for(0, 9))
    assert not await signal.wait_for(0, 1)
    assert not endless.done()
    assert not longer.done()
    signal.notify()
    assert (await endless, await longer) == (1, True)


@in_virtual_time
async def test_cancelled_wait_leaves_nothing_behind() -> None:
    signal = VersionSignal()
    for wait in (signal.wait(0), signal.wait_for(0, 5)):
        task = asyncio.create_task(wait)
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
    assert not signal._waiters
    signal.notify()
    assert await signal.wait(0) == 1
