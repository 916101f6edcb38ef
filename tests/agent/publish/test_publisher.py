"""The publisher in virtual time against a fake apiserver."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gpufleet_agent.kube.api import KubeError, ObjectNotFoundError
from gpufleet_agent.kube.model import TelemetryObject
from gpufleet_agent.kube.telemetry_watch import TelemetryWatch
from gpufleet_agent.publish.publisher import Publisher
from gpufleet_agent.publish.rate_limit import WriteCause, WritePolicy
from gpufleet_agent.runtime.instruments import Instruments
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_testing.agent.built_status import BuiltStatus
from gpufleet_testing.agent.virtual_time import in_virtual_time

InVirtualTime = Callable[[Coroutine[Any, Any, None]], None]


class FakeApi:
    """Takes status writes down with the time they came at."""

    def __init__(self) -> None:
        self.object: TelemetryObject | None = TelemetryObject("uid-a", 1, 1)
        self.away = False
        self.takes_seconds = 0.0
        self.reserved_meanwhile = False
        """Whether reservations are written during the next write."""
        self.attempts: list[float] = []
        self.writes: list[tuple[float, int]] = []

    async def get(self) -> TelemetryObject:
        if self.object is None:
            raise ObjectNotFoundError("gone")
        return self.object

    async def ensure(self) -> TelemetryObject:
        version = self.object.resource_version if self.object else 100
        self.object = self.object or TelemetryObject("uid-b", 1, version)
        return self.object

    async def apply_status(self, status: Mapping[str, Any]) -> TelemetryObject:
        now = asyncio.get_running_loop().time() - 1000
        self.attempts.append(now)
        if self.away:
            raise KubeError("away")
        current = await self.get()
        self.writes.append((now, status["devices"][0]["utilizationPercent"]))
        generation = current.generation + int(self.reserved_meanwhile)
        self.object = TelemetryObject(current.uid, generation, current.resource_version + 1)
        self.reserved_meanwhile = False
        await asyncio.sleep(self.takes_seconds)
        return self.object

    async def watch(self) -> AsyncGenerator[TelemetryObject | None, None]:
        yield self.object

    async def close(self) -> None:
        pass


class Rig:
    def __init__(self) -> None:
        self.api = FakeApi()
        self.changes = VersionSignal()
        self.own = TelemetryWatch(self.api, self.changes, random.Random(1))  # noqa: S311 - jitter
        self.utilization = 0
        self.healthy = True
        self.registry = CollectorRegistry()
        self.publisher = Publisher(
            api=self.api,
            telemetry=self.own,
            observe=lambda: BuiltStatus(self.status()),
            changes=self.changes,
            policy=WritePolicy(jitter=0.0),
            counters=Instruments(self.registry, "test"),
            rng=random.Random(1),  # noqa: S311 - jitter
        )

    def status(self) -> dict[str, Any]:
        device = {
            "uuid": "GPU-0",
            "utilizationPercent": self.utilization,
            "health": {"state": "Healthy" if self.healthy else "Unhealthy"},
        }
        return {"assignmentsGeneration": self.own.generation, "devices": [device]}


@asynccontextmanager
async def running() -> AsyncGenerator[Rig, None]:
    rig = Rig()
    await rig.own.refresh()
    task = asyncio.create_task(rig.publisher.run(lambda: None))
    try:
        yield rig
    finally:
        assert not task.done()
        task.cancel()


@in_virtual_time
async def test_it_writes_at_once_and_then_a_heartbeat() -> None:
    async with running() as rig:
        await asyncio.sleep(95)
        times = [now for now, _ in rig.api.writes]
        assert times[0] == pytest.approx(0, abs=0.1)
        assert times[1:] == pytest.approx([30, 60, 90], abs=3)
        assert rig.publisher.published


@in_virtual_time
async def test_an_answer_that_comes_late_does_not_put_the_heartbeat_off() -> None:
    async with running() as rig:
        rig.api.takes_seconds = 28
        await asyncio.sleep(95)
        assert [now for now, _ in rig.api.writes] == pytest.approx([0, 30, 60, 90], abs=3)


@in_virtual_time
async def test_a_reading_beyond_its_dead_band_is_written_at_the_next_tick() -> None:
    async with running() as rig:
        await asyncio.sleep(10.5)
        rig.utilization = 9
        await asyncio.sleep(5)
        assert len(rig.api.writes) == 1
        rig.utilization = 90
        await asyncio.sleep(1.1)
        ((written_at, utilization),) = rig.api.writes[1:]
        assert written_at == pytest.approx(16, abs=0.6)
        assert utilization == 90


@in_virtual_time
async def test_an_urgent_change_does_not_wait_for_the_tick() -> None:
    async with running() as rig:
        await asyncio.sleep(10.5)
        rig.healthy = False
        rig.changes.notify()
        await asyncio.sleep(0.01)
        assert [now for now, _ in rig.api.writes] == pytest.approx([0, 10.5], abs=0.01)


@in_virtual_time
async def test_urgent_change_right_after_write_waits_for_min_interval() -> None:
    async with running() as rig:
        await asyncio.sleep(0.2)
        rig.healthy = False
        rig.changes.notify()
        await asyncio.sleep(0.9)
        assert [now for now, _ in rig.api.writes] == pytest.approx([0, 1], abs=0.01)


def reserve(rig: Rig) -> None:
    assert rig.api.object is not None
    rig.api.object = TelemetryObject("uid-a", 2, rig.api.object.resource_version + 1)
    rig.own.update(rig.api.object)


@in_virtual_time
async def test_new_reservations_are_acknowledged_at_the_tick_after_two_seconds() -> None:
    async with running() as rig:
        await asyncio.sleep(10.2)
        reserve(rig)
        await asyncio.sleep(1.7)
        assert len(rig.api.writes) == 1
        await asyncio.sleep(1.2)
        assert [now for now, _ in rig.api.writes] == pytest.approx([0, 13], abs=0.2)


@in_virtual_time
async def test_reservations_during_a_write_wait_as_long_as_others() -> None:
    async with running() as rig:
        await asyncio.sleep(10.2)
        rig.api.reserved_meanwhile = True
        reserve(rig)
        await asyncio.sleep(9)
        assert [now for now, _ in rig.api.writes] == pytest.approx([0, 13, 15], abs=0.2)


@in_virtual_time
async def test_new_reservations_and_their_containers_are_one_write() -> None:
    async with running() as rig:
        await asyncio.sleep(10.2)
        reserve(rig)
        await asyncio.sleep(1.0)
        rig.healthy = False
        rig.changes.notify()
        await asyncio.sleep(15)
        assert [now for now, _ in rig.api.writes] == pytest.approx([0, 11.2], abs=0.01)


@in_virtual_time
async def test_apiserver_outage_backs_off_then_newest_state_is_written() -> None:
    async with running() as rig:
        await asyncio.sleep(5)
        rig.api.away = True
        rig.healthy = False
        rig.changes.notify()
        for rig.utilization in range(100):
            rig.changes.notify()
            await asyncio.sleep(3)
        failed = rig.api.attempts[1:]
        assert 10 < len(failed) < 25
        gaps = [later - earlier for earlier, later in pairwise(failed)]
        assert max(gaps) <= 31
        assert min(gaps[6:]) >= 15
        rig.api.away = False
        await asyncio.sleep(31)
        written_at, utilization = rig.api.writes[1]
        assert written_at == pytest.approx(320, abs=17)
        assert utilization == 99
        failures = rig.registry.get_sample_value(
            "gpufleet_agent_status_writes_total", {"cause": "Urgent", "outcome": "Failed"}
        )
        assert failures == len(failed)
        written = [
            rig.registry.get_sample_value(
                "gpufleet_agent_status_writes_total", {"cause": cause.value, "outcome": "Written"}
            )
            for cause in WriteCause
        ]
        assert sum(filter(None, written)) == len(rig.api.writes)


@in_virtual_time
async def test_an_object_that_is_missing_is_created_and_written_to() -> None:
    async with running() as rig:
        await asyncio.sleep(5)
        rig.api.object = None
        rig.healthy = False
        rig.changes.notify()
        await asyncio.sleep(3)
        assert (await rig.api.get()).uid == "uid-b"
        assert len(rig.api.writes) == 2


@in_virtual_time
async def test_another_object_of_the_same_name_gets_its_status_at_once() -> None:
    async with running() as rig:
        await asyncio.sleep(5)
        rig.api.object = TelemetryObject("uid-c", 1, 50)
        rig.own.update(rig.api.object)
        await asyncio.sleep(1.1)
        assert len(rig.api.writes) == 2
        await asyncio.sleep(20)
        assert len(rig.api.writes) == 2


@in_virtual_time
async def test_nothing_is_written_before_the_object_is_known() -> None:
    rig = Rig()
    await rig.publisher.step()
    assert rig.api.attempts == []
    assert not rig.publisher.published
