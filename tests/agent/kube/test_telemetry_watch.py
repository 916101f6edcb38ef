"""The node's own object in memory: who may set it back, and how it comes to be."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gpufleet_agent.kube.api import KubeError, ObjectNotFoundError
from gpufleet_agent.kube.model import Cordon, ObjectFormatError, TelemetryObject
from gpufleet_agent.kube.telemetry_watch import TelemetryWatch
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_testing.agent.objects import assignment
from gpufleet_testing.agent.virtual_time import in_virtual_time

InVirtualTime = Callable[[Coroutine[Any, Any, None]], None]


class FakeApi:
    """A cluster with one node and at most one object; a watch that tests feed."""

    def __init__(self) -> None:
        self.object: TelemetryObject | None = None
        self.node_exists = True
        self.away = False
        self.calls: list[str] = []
        self.events: asyncio.Queue[TelemetryObject | Exception | str | None] = asyncio.Queue()

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.away:
            raise KubeError("away")

    async def get(self) -> TelemetryObject:
        self._call("get")
        if self.object is None:
            raise ObjectNotFoundError("no such object")
        return self.object

    async def ensure(self) -> TelemetryObject:
        self._call("ensure")
        if not self.node_exists:
            raise ObjectNotFoundError("no such node")
        self.object = self.object or TelemetryObject("uid-1", 1, 10)
        return self.object

    async def apply_status(self, status: Mapping[str, Any]) -> TelemetryObject:
        raise NotImplementedError

    async def watch(self) -> AsyncGenerator[TelemetryObject | None, None]:
        self._call("watch")
        while (event := await self.events.get()) != "end":
            if isinstance(event, Exception):
                raise event
            assert not isinstance(event, str)
            yield event

    async def close(self) -> None:
        pass


class Rig:
    def __init__(self) -> None:
        self.api = FakeApi()
        self.changes = VersionSignal()
        self.own = TelemetryWatch(self.api, self.changes, random.Random(1))  # noqa: S311 - jitter


@asynccontextmanager
async def following() -> AsyncGenerator[Rig, None]:
    rig = Rig()
    task = asyncio.create_task(rig.own.run())
    await asyncio.sleep(0.01)
    try:
        yield rig
    finally:
        assert not task.done()
        task.cancel()


def test_late_watch_event_does_not_replace_a_newer_read() -> None:
    rig = Rig()
    newer = TelemetryObject("uid-1", 3, 30, (assignment("a", "GPU-0"),))
    rig.own.update(newer)
    rig.own.update(TelemetryObject("uid-1", 2, 20))
    assert rig.own.current == newer
    assert rig.changes.version == 1


def test_a_status_write_is_no_news_and_a_new_generation_is() -> None:
    rig = Rig()
    rig.own.update(TelemetryObject("uid-1", 1, 10))
    rig.own.update(TelemetryObject("uid-1", 1, 11))
    assert rig.changes.version == 1
    rig.own.update(TelemetryObject("uid-1", 2, 12))
    assert rig.changes.version == 2
    assert rig.own.generation == 2


def test_cordon_ends_by_itself() -> None:
    rig = Rig()
    assert rig.own.cordoned(0) == frozenset()
    rig.own.update(TelemetryObject("uid-1", 1, 10, cordons=(Cordon("GPU-0"), Cordon("GPU-1", until=100.0))))
    assert rig.own.cordoned(99) == {"GPU-0", "GPU-1"}
    assert rig.own.cordoned(100) == {"GPU-0"}


async def test_reservations_are_unknown_until_read_and_empty_without_object() -> None:
    rig = Rig()
    reported = [rig.own.assignments]
    rig.api.away = True
    with pytest.raises(KubeError):
        await rig.own.refresh()
    reported.append(rig.own.assignments)
    rig.api.away = False
    await rig.own.refresh()
    reported.append(rig.own.assignments)
    assert reported == [None, None, ()]
    await rig.own.wait_synced()


@in_virtual_time
async def test_at_start_the_object_is_created_with_its_owner_and_then_watched() -> None:
    async with following() as rig:
        assert rig.api.calls == ["ensure", "watch"]
        reserved = (assignment("a", "GPU-0"),)
        rig.api.events.put_nowait(TelemetryObject("uid-1", 2, 11, reserved))
        await asyncio.sleep(0.01)
        assert rig.own.assignments == reserved


@in_virtual_time
async def test_a_watch_that_ends_or_breaks_is_followed_by_a_read_and_another() -> None:
    async with following() as rig:
        for last in ("end", KubeError("410 Gone"), ObjectFormatError("unreadable")):
            rig.api.calls.clear()
            rig.api.events.put_nowait(last)
            await asyncio.sleep(2)
            assert rig.api.calls == ["get", "watch"]


@in_virtual_time
async def test_deleted_object_is_created_again() -> None:
    async with following() as rig:
        rig.api.object = None
        rig.api.events.put_nowait(None)
        await asyncio.sleep(0.01)
        assert rig.own.current == rig.api.object
        assert rig.api.calls[-3:] == ["get", "ensure", "watch"]


@in_virtual_time
async def test_without_its_node_the_object_is_not_created_until_the_node_is_back() -> None:
    async with following() as rig:
        rig.api.object, rig.api.node_exists = None, False
        rig.api.events.put_nowait(None)
        await asyncio.sleep(100)
        assert rig.own.current is None
        assert rig.own.assignments == ()
        assert rig.api.calls.count("ensure") < 30
        rig.api.node_exists = True
        await asyncio.sleep(31)
        assert rig.own.current is not None


@in_virtual_time
async def test_without_apiserver_the_cache_is_kept_and_attempts_back_off() -> None:
    async with following() as rig:
        before = rig.own.current
        assert before is not None
        rig.api.away = True
        rig.api.events.put_nowait(KubeError("connection reset"))
        await asyncio.sleep(600)
        assert rig.own.current == before
        assert 15 < len(rig.api.calls) < 90
        rig.api.away = False
        await asyncio.sleep(31)
        assert rig.api.calls[-2:] == ["get", "watch"]
