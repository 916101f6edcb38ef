"""Slow writes delay only their own scope. Time is virtual."""

import asyncio
from functools import partial

import pytest

from gpufleet_operator.runtime.pacing.scoped_writes import MAX_SCOPES, PATIENCE_SECONDS, ScopedWrites
from gpufleet_testing.agent.virtual_time import in_virtual_time

HANG_SECONDS = 15


class Writes:
    """Writes that take some seconds, and the numbers of those that have begun and ended."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []

    async def write(self, name: str, seconds: float = 0.0) -> None:
        self.begun.append(name)
        await asyncio.sleep(seconds)
        self.ended.append(name)


@in_virtual_time
async def test_slow_scope_delays_no_other_one() -> None:
    scoped, writes, loop = ScopedWrites(), Writes(), asyncio.get_running_loop()
    began = loop.time()

    await scoped.run([("slow", partial(writes.write, "a", HANG_SECONDS)), ("ml", partial(writes.write, "b"))])
    assert loop.time() - began == PATIENCE_SECONDS
    await scoped.run([("slow", partial(writes.write, "c")), ("ml", partial(writes.write, "d"))])

    assert writes.ended == ["b", "d"]
    assert "c" not in writes.begun, "the first write of its scope has no response"
    await asyncio.sleep(HANG_SECONDS)
    await scoped.run([("slow", partial(writes.write, "e"))])
    assert writes.ended == ["b", "d", "a", "e"]


@in_virtual_time
async def test_writes_of_a_scope_follow_one_another_for_a_moment_only() -> None:
    """What is left may be outdated after a slow one, and is decided again."""
    scoped, writes = ScopedWrites(), Writes()

    await scoped.run([("ml", partial(writes.write, name, 0.6 * PATIENCE_SECONDS)) for name in "abc"])
    await asyncio.sleep(HANG_SECONDS)

    assert writes.ended == writes.begun == ["a", "b"]


@in_virtual_time
async def test_number_of_scopes_in_a_round_is_limited() -> None:
    scoped, writes = ScopedWrites(), Writes()
    await scoped.run([(f"node-{n}", partial(writes.write, str(n))) for n in range(2 * MAX_SCOPES)])
    assert len(writes.ended) == MAX_SCOPES


@in_virtual_time
async def test_error_is_raised_also_by_the_next_round() -> None:
    async def fails(seconds: float) -> None:
        await asyncio.sleep(seconds)
        raise RuntimeError

    scoped = ScopedWrites()
    with pytest.raises(RuntimeError):
        await scoped.run([("ml", partial(fails, 0))])
    await scoped.run([("ml", partial(fails, HANG_SECONDS))])
    await asyncio.sleep(HANG_SECONDS)
    with pytest.raises(RuntimeError):
        await scoped.run([])


@in_virtual_time
async def test_close_cancels_what_has_not_ended() -> None:
    scoped, writes = ScopedWrites(), Writes()
    await scoped.run([("slow", partial(writes.write, "a", HANG_SECONDS))])
    await scoped.close()
    await asyncio.sleep(HANG_SECONDS)
    assert not writes.ended
