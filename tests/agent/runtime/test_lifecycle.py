import asyncio
from contextlib import AsyncExitStack

import pytest
import structlog

from gpufleet_agent.runtime import lifecycle
from gpufleet_agent.runtime.lifecycle import ComponentError, start_component, supervise


class Part:
    def __init__(self, name: str, log: list[str], error: Exception | None = None) -> None:
        self.name, self._log, self._error = name, log, error

    async def start(self) -> None:
        if self._error:
            raise self._error
        self._log.append(f"+{self.name}")

    async def close(self) -> None:
        self._log.append(f"-{self.name}")


async def start_all(*everything: Part) -> None:
    async with AsyncExitStack() as stack:
        for part in everything:
            await start_component(stack, part.name, part.start, part.close)


async def test_parts_are_closed_in_reverse_order() -> None:
    log: list[str] = []
    await start_all(Part("a", log), Part("b", log))
    assert log == ["+a", "+b", "-b", "-a"]


async def test_a_part_that_fails_names_itself_and_undoes_the_parts_before_it() -> None:
    log: list[str] = []
    with pytest.raises(ComponentError, match=r"^b: OSError: address in use$") as raised:
        await start_all(Part("a", log), Part("b", log, OSError("address in use")), Part("c", log))
    assert log == ["+a", "-a"]
    assert isinstance(raised.value.__cause__, OSError)


async def test_a_part_that_never_closes_is_left_behind_and_the_rest_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "CLOSE_SECONDS", 0.01)
    log: list[str] = []

    async def hang() -> None:
        await asyncio.Event().wait()

    with structlog.testing.capture_logs() as events:
        async with AsyncExitStack() as stack:
            a, b = Part("a", log), Part("b", log)
            await start_component(stack, "a", a.start, a.close)
            await start_component(stack, "b", b.start, hang)
    assert log == ["+a", "+b", "-a"]
    assert [event["component"] for event in events if event["log_level"] == "warning"] == ["b"]


@pytest.mark.parametrize("error", [OSError("is a directory"), TimeoutError("of its own"), ValueError("defect")])
async def test_a_part_that_fails_to_close_is_named_and_the_rest_is_closed(error: Exception) -> None:
    log: list[str] = []

    async def fail() -> None:
        raise error

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            a, b = Part("a", log), Part("b", log)
            await start_component(stack, "a", a.start, a.close)
            await start_component(stack, "b", b.start, fail)
            raise ComponentError("c: the first to fail")

    with structlog.testing.capture_logs() as events, pytest.raises(ComponentError, match="c: the first to fail"):
        await scenario()
    assert log == ["+a", "+b", "-a"]
    (event,) = [event for event in events if event["log_level"] == "error"]
    assert (event["component"], event["exc_info"]) == ("b", error)


async def test_a_loop_that_fails_ends_the_others_and_is_named() -> None:
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("forever")

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("broken")

    with pytest.raises(ComponentError, match=r"^bad: ValueError: broken$"):
        await supervise({"good": forever(), "bad": fails()})
    assert ended == ["forever"]


async def test_a_loop_that_just_ends_is_an_error_too() -> None:
    async def ends() -> None:
        pass

    with pytest.raises(ComponentError, match=r"^short: ended without an error$"):
        await supervise({"short": ends()})


async def test_cancelling_ends_all_loops_before_it_returns() -> None:
    ended: list[str] = []

    async def forever(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(name)

    task = asyncio.create_task(supervise({"a": forever("a"), "b": forever("b")}))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(ended) == ["a", "b"]
